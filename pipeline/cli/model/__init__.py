"""`eddy model`."""
