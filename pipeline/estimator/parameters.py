"""What a parameter of an estimator may be; the sentence names it and what it is."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np


def check_int(name: str, value: Any) -> None:
    """Let pass a whole number, 1 or more."""
    if not isinstance(value, Integral) or int(value) < 1:
        raise ValueError(f"{name} is {value!r}, but must be a whole number, 1 or more")


def check_number(name: str, value: Any) -> None:
    """Let pass a number, 0 or more."""
    if not isinstance(value, Real) or not 0.0 <= float(value) < np.inf:
        raise ValueError(f"{name} is {value!r}, but must be a number, 0 or more")


def check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Let pass one of some words."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} is {value!r}, but must be one of {', '.join(choices)}")


def seed_of(random_state: Any) -> int:
    """A seed from what scikit-learn takes for one; None draws from NumPy's global generator."""
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(2**31 - 1))
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31 - 1))
    if random_state is None:
        return int(np.random.randint(2**31 - 1))
    if isinstance(random_state, Integral) and int(random_state) >= 0:
        return int(random_state)
    raise ValueError(f"random_state is {random_state!r}, but must be None, an int or a generator")
