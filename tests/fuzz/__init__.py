"""Random vertex functions, over random structures, called in every way, against the reference: `python -m tests.fuzz`."""
