"""What a member weighs by its time, calculated a second time: in integers and decimals."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from decimal import Decimal, localcontext
from functools import cache

from pipeline.cli.audit.tally import NewestModel


@dataclass(frozen=True, slots=True)
class Fading:
    """By the manifest: a member's weight halves with each half-life before the landmark."""

    half_life_ms: int
    landmark_ms: int

    @classmethod
    def of(cls, model: NewestModel) -> Fading | None:
        """That of a model; None where members do not fade."""
        told = model.manifest.get("forgetting")
        if told is None:
            return None
        landmark = datetime.datetime.fromisoformat(told["landmark"])
        since = landmark - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
        landmark_ms = since // datetime.timedelta(milliseconds=1)
        return cls(round(float(told["half_life_s"]) * 1000), landmark_ms)

    def weight(self, timestamp_ms: int | None) -> float:
        """Steps of 1/1024 half-life, half up; at most 8 half-lives ahead, at least 16 behind."""
        if timestamp_ms is None or timestamp_ms < 0:
            return 1.0
        age = timestamp_ms - self.landmark_ms
        age = max(-16 * self.half_life_ms, min(8 * self.half_life_ms, age))
        doublings, part = divmod((2048 * age + self.half_life_ms) // (2 * self.half_life_ms), 1024)
        return _mantissa(part) * 2.0 ** (doublings - 15)


@cache
def _mantissa(part: int) -> int:
    """``2**(part / 1024)`` in units of 2**-15, the nearest."""
    with localcontext() as context:
        context.prec = 40
        return round(Decimal(2) ** (Decimal(part) / 1024 + 15))
