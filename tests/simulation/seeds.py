"""Which histories are played: a part of them in every run, all of them by `make histories`.

A seed stays in the list for good: what it found once, it would find again.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

IS_WHOLE = os.environ.get("ALL_SEEDS") == "1"


def seeds(first: int, end: int, *, usual: int) -> Sequence[int]:
    """The seeds from ``first`` up to ``end``; in a usual run so many, evenly spread over them."""
    every = range(first, end)
    assert 0 < usual <= len(every)
    return every if IS_WHOLE else [every[i * len(every) // usual] for i in range(usual)]
