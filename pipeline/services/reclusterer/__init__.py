"""A sample and statistics in, epochs and revisions out; one is active."""
