"""The symbolic graph of a vertex function as text that can be read."""
