"""Runs whose loops are all native code: written down once for a structure; then a pass is one call."""
