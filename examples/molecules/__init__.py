"""The logP of a molecule from its junction tree."""
