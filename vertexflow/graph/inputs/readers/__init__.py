"""Input graphs from the formats and the libraries that people have."""
