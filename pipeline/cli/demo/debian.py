"""The stream that is bundled for ``eddy demo``: Debian packages over five releases.

What it is, and whose: ``data/README.md``.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from itertools import groupby
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

RELEASES: Final = {
    "bullseye": "Debian 11, bullseye",
    "bookworm": "Debian 12, bookworm",
    "trixie": "Debian 13, trixie",
    "forky": "Debian testing, forky",
    "sid": "Debian unstable, sid",
}
"""In the order of the stream."""


class Change(NamedTuple):
    """One package in one release."""

    release: str
    kind: str
    """``insert``, ``reinsert``, ``text`` (another description) or ``delete``."""
    package: str
    section: str
    row: int
    """Of `Packages.vectors` and `Packages.summaries`; -1 for a delete."""


@dataclass(frozen=True, slots=True, eq=False)
class Packages:
    """The whole stream."""

    changes: tuple[Change, ...]
    summaries: tuple[str, ...]
    vectors: NDArray[np.float32]
    """(n_texts, 384), of unit length."""

    def releases(self) -> Iterator[tuple[str, list[Change]]]:
        """Each release and its changes, in order."""
        for release, changes in groupby(self.changes, key=lambda change: change.release):
            yield release, list(changes)


def load(folder: Traversable | None = None) -> Packages:
    """Read the stream from the package, or from another folder with files of the same form."""
    folder = folder or files("pipeline.cli.demo").joinpath("data")
    with folder.joinpath("embeddings_f16.npy").open("rb") as file:
        vectors = np.load(file).astype(np.float64)
    vectors /= np.sqrt((vectors**2).sum(axis=1, keepdims=True))
    return Packages(
        tuple(Change(*values) for values in _lines(folder.joinpath("changes.jsonl.xz"))),
        tuple(_lines(folder.joinpath("summaries.jsonl.xz"))),
        vectors.astype(np.float32),
    )


def _lines(path: Traversable) -> list[Any]:
    return [json.loads(line) for line in lzma.decompress(path.read_bytes()).splitlines()]
