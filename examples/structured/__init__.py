"""Structured prediction: sums over all paths, segmentations, alignments and parses, as vertex functions over semirings."""
