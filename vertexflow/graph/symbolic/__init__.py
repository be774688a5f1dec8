"""The symbolic graph of a vertex function, F: traced once, checked, and cut into parts."""
