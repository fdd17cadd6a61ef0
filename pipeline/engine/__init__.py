"""Micro-batch -> changes: where the two wings meet."""
