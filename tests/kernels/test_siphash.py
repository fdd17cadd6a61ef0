"""The hash under the index of ids is the one it says it is."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np

from pipeline.kernels import siphash


def hashed(message, key_0=0, key_1=0):
    held = np.frombuffer(message + b"\0", np.uint8)  # an address needs something at it
    return int(siphash.hashed(held.ctypes.data, len(message), np.int64(key_0), np.int64(key_1)))


def test_hash_is_the_published_one():
    """The vector of no message, under the bytes 0 to 15 as the key."""
    key = np.arange(16, dtype=np.uint8).view(np.int64)

    assert hashed(b"", *key) == 0xABAC0158050FC4DC


def test_hash_is_that_of_the_interpreter_under_its_key():
    """Python hashes bytes so as well; without a seed its key is 0."""
    assert sys.hash_info.algorithm == "siphash13"
    messages = [bytes(range(n)) for n in range(1, 40)]
    code = "print([hash(bytes(range(n))) % 2**64 for n in range(1, 40)])"
    told = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=True,
    )

    assert str([hashed(message) for message in messages]) == told.stdout.strip()


def test_hash_needs_its_key():
    assert hashed(b"an id") != hashed(b"an id", 1) != hashed(b"an id", 0, 1)
