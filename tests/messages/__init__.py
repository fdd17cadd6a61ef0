"""Tests of the messages: every byte in, every byte out."""
