"""Tier 1: every record."""
