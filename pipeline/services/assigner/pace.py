"""How much a slice of work takes on, so that what comes meanwhile hardly waits."""

from __future__ import annotations

from dataclasses import dataclass

MAX_GROWTH = 1.5
"""A slice that was quick may have been luck."""
MAX_CUT = 4.0
"""One that was slow may have been a stall of the machine, and the way back up is slow."""


@dataclass(slots=True)
class SlicePace:
    """The size of the next slice, from how long the last ones took."""

    budget_s: float = 0.005
    """Below a commit, which takes 5 to 10 ms and which a slice may need as a batch does."""
    n_rows: int = 1000
    """Of the next slice at most."""
    min_rows: int = 64
    """A slice has costs of its own, and must get on in spite of them."""
    max_rows: int = 2**14
    """What one slice copies stays small however fast the device is."""

    def took(self, n_rows: int, duration_s: float) -> None:
        """A slice compared ``n_rows`` in this time; a clock that stood still counts as quick."""
        is_full = 2 * n_rows > self.n_rows
        if not is_full and duration_s <= self.budget_s:
            return  # there was not more to do, so it says nothing
        if duration_s * MAX_GROWTH * self.n_rows <= self.budget_s * n_rows:
            wanted = MAX_GROWTH * self.n_rows
        else:
            wanted = max(n_rows * self.budget_s / duration_s, self.n_rows / MAX_CUT)
        self.n_rows = min(max(round(wanted), self.min_rows), self.max_rows)
