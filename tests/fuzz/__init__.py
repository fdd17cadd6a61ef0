"""Fuzzing: every decoder, configuration and snapshots take bytes that nobody thought of."""
