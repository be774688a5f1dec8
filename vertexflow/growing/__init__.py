"""Runs whose structure is found as they go."""
