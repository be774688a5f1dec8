"""A word's part of speech from what depends on it."""
