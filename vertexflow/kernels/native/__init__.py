"""Cores as native code: generated from the symbolic graph, compiled once, run over all steps without Python in between."""
