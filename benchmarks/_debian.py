"""Debian's packages as streams: what lives after each release, and the orders to tell it in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.debian_gap import load_full
from pipeline.cli.demo.debian import Change, Packages, load

ORDERS: Final = ("hash", "alphabetical", "section")
"""Of the changes inside a release: as the files have them, which is by a hash of the name, or
sorted. A sorted one is the hard case: whole topics come at the end."""


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """What lives after a release; the same whatever the order inside it was."""

    release: str
    names: tuple[str, ...]
    """Sorted."""
    rows: NDArray[np.intp]  # (n,) of `Packages.vectors`
    sections: NDArray[np.str_]  # (n,)


def read(folder: Path | None) -> Packages:
    """The full set, or without a folder the slice that ships with ``eddy demo``."""
    return load() if folder is None else load_full(folder)


def ordered(packages: Packages, order: str) -> Packages:
    """The same releases, each in another order inside; a package has one change in each."""
    if order == "hash":
        return packages
    releases = []
    for _, changes in packages.releases():
        if order == "section":
            releases += sorted(changes, key=lambda change: (change.section, change.package))
        else:
            releases += sorted(changes, key=lambda change: change.package)
    return replace(packages, changes=tuple(releases))


def states(packages: Packages) -> Iterator[State]:
    """After each release."""
    live: dict[str, Change] = {}
    for release, changes in packages.releases():
        for change in changes:
            if change.row < 0:
                live.pop(change.package, None)
            else:
                live[change.package] = change
        names = tuple(sorted(live))
        yield State(
            release,
            names,
            np.array([live[name].row for name in names], np.intp),
            np.array([live[name].section for name in names]),
        )


def thinned(packages: Packages, n: int) -> Packages:
    """A stream of the same kind with about ``n`` packages, each with all its changes."""
    names = sorted({change.package for change in packages.changes})
    kept = set(names[:: max(1, len(names) // n)])
    changes = tuple(change for change in packages.changes if change.package in kept)
    return replace(packages, changes=changes)
