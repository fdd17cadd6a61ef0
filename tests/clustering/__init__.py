"""Tests of the decisions on arrays."""
