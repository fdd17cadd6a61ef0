"""Tests of the edge to the broker, and of its twin in memory."""
