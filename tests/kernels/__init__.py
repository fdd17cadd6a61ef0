"""Tests of the kernels: one contract, every twin."""
