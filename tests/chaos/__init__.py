"""Faults on purpose, on a real Kafka, with a verdict: ``python -m tests.chaos``."""
