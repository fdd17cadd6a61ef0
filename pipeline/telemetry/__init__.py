"""Logs, metrics and health: what a process says of itself."""
