"""Runs that grow: states and outputs are kept as vertices are added."""
