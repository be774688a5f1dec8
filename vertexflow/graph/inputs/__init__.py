"""The input graphs, G: how one is made, how many become a batch."""
