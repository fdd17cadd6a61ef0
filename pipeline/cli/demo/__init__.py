"""`eddy demo`."""
