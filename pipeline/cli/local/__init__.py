"""Everything on this machine: `eddy up`, `eddy broker`."""
