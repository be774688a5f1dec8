"""Passes over a symbolic graph between its trace and its partition, and what they share."""
