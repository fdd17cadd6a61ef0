"""How much an item counts for by its age: exact weights, fixed by its time and a landmark.

The method is that of "Forward decay: a practical time decay model for streaming systems" (2009),
with an exponential: an item weighs ``g(t - landmark)``, and not a function of its age now. What
it weighs now is that divided by ``g(now - landmark)``, which is one factor for all and leaves
every mean as it is. So what an item adds to a sum does not change while the landmark stands,
and subtracting it is exact. A landmark stands for an epoch of the model.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import isqrt

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError
from pipeline.kernels.contract import MAX_WEIGHT

NO_TIMESTAMP = -1
"""Stands for a record that has none."""
MAX_HALF_LIFE_S = 1.0e9

_STEPS = 1024  # of one doubling
_MANTISSA_BITS = 15
_MAX_DOUBLINGS = 8  # MAX_WEIGHT
_MIN_DOUBLINGS = -16


@dataclass(frozen=True, slots=True)
class Decay:
    """The weight of an item at a time ``t``: ``2**((t - landmark) / half_life)``.

    The exponent is rounded to a multiple of 2**-10, half up, in integers of milliseconds. Its
    fraction picks one of 1024 mantissas, each correctly rounded to 15 bits behind the point, and
    a power of two does the rest. So a weight has the same bits on every machine, which a
    library's ``exp2`` does not promise. It is within 0.04 % of the formula: half a step of the
    exponent is 0.034 %, half a step of the mantissa at most 0.0015 %.

    Weights end at 2**8 above: a timestamp further ahead counts as that. They end at 2**-16 below:
    what is older than 16 half-lives before the landmark weighs alike, so a cluster of nothing else
    still has the mean of its members; and no weight loses a bit in a sum, being a multiple of
    `pipeline.kernels.contract.WEIGHT_UNIT`.

    Raises
    ------
    ConfigError
        The half-life is not at least a millisecond, or above `MAX_HALF_LIFE_S`.
    """

    half_life_s: float
    """What is so much older weighs half; counted in whole milliseconds."""
    landmark_ms: int
    """Where the weight is 1; milliseconds since 1970."""

    def __post_init__(self) -> None:
        if not 0.001 <= self.half_life_s <= MAX_HALF_LIFE_S:
            raise ConfigError(
                f"clustering.half_life_s is {self.half_life_s}, but must be in "
                f"0.001..{MAX_HALF_LIFE_S:.0f}"
            )

    @property
    def half_life_ms(self) -> int:
        return round(self.half_life_s * 1000.0)

    def weight(self, timestamps_ms: NDArray[np.int64]) -> NDArray[np.float64]:
        """Of items by the timestamps of the records that count.

        Parameters
        ----------
        timestamps_ms
            (n,) int64, milliseconds since 1970. `NO_TIMESTAMP`, or anything below 0, weighs 1: what
            has no age does not fade, and a stream without timestamps is as one without forgetting.

        Returns
        -------
        (n,) float64, 2**-16 to 2**8, never falling with the timestamp.
        """
        half_life = self.half_life_ms
        # cut before anything is subtracted or multiplied: no timestamp overflows
        earliest = self.landmark_ms + _MIN_DOUBLINGS * half_life
        latest = self.landmark_ms + _MAX_DOUBLINGS * half_life
        ages = np.clip(timestamps_ms, earliest, latest) - self.landmark_ms
        ages[timestamps_ms < 0] = 0
        steps = (2 * _STEPS * ages + half_life) // (2 * half_life)
        weights: NDArray[np.float64] = np.ldexp(_mantissas()[steps % _STEPS], steps // _STEPS)
        return weights

    def next_landmark_is_due(self, now_s: float) -> bool:
        """Whether an item of this moment weighs the most that there is: after 8 half-lives.

        Or so little as if it were a half-life old: the clock that set the landmark was set back.
        """
        past_ms = now_s * 1000.0 - self.landmark_ms
        return past_ms >= _MAX_DOUBLINGS * self.half_life_ms or past_ms <= -self.half_life_ms


@cache
def _mantissas() -> NDArray[np.float64]:
    """(1024,) ``2**(i / 1024)`` to 15 bits behind the point, each the nearest there is.

    A root of 1024 is ten square roots, and the integer part of them is that of the root. None but
    the first is rational, so none is half way between two.
    """
    assert MAX_WEIGHT == 2.0**_MAX_DOUBLINGS
    found = np.empty(_STEPS)
    for i in range(_STEPS):
        root = 1 << (i + _STEPS * (_MANTISSA_BITS + 1))  # one bit more, to round by
        for _ in range(_STEPS.bit_length() - 1):
            root = isqrt(root)
        found[i] = (root + 1) // 2
    found /= 2.0**_MANTISSA_BITS
    found.flags.writeable = False
    return found
