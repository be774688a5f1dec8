"""Samples of a dataset as batches."""
