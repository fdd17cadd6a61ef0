"""The map as it was: a ring of frames, some seconds apart, as arrays.

A cluster takes `ROW_BYTES` in a frame, and the names are shared by frames that have the same: six
hours at ten seconds are 2,160 frames, at 500 clusters 8 KB each, 18 MB in all. Beyond `MAX_BYTES`
the oldest go, so with more clusters the ring reaches back less far. A process that starts has none,
unless a snapshot of the view brings them (`pipeline.services.server.view_snapshots`).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

STEP_S: Final = 10
SPAN_S: Final = 6 * 3600
MAX_BYTES: Final = 64 * 2**20
MAX_ROWS: Final = 60_000
"""Of clusters that one reply may have: some 6 MB of JSON."""
FRAME_BYTES: Final = 400
"""Of what a frame takes beside its rows."""
_UNIT: Final = 10_000
"""Of a place on the map: four decimals in 16 bits."""
_NOWHERE: Final = np.iinfo(np.int16).min
_ROW: Final = np.dtype(
    [("size", "i4"), ("growth", "i4"), ("x", "i2"), ("y", "i2"), ("drift", "f4")]
)
ROW_BYTES: Final = _ROW.itemsize


@dataclass(frozen=True, slots=True, eq=False)
class MapFrame:
    """All clusters at one moment."""

    time_ms: int
    """A multiple of the step, so that replicas have the same."""
    version: tuple[int, int]
    clusters: Sequence[str]
    labels: Sequence[str | None]
    rows: NDArray[np.void]  # (n_clusters,) of `_ROW`

    @property
    def n_bytes(self) -> int:
        """Without the names, which are shared."""
        return FRAME_BYTES + self.rows.nbytes


def frame_of(
    time_ms: int,
    version: tuple[int, int],
    clusters: Sequence[str],
    labels: Sequence[str | None],
    *,
    sizes: NDArray[np.int64],
    growths: NDArray[np.int64],
    places: Mapping[str, tuple[float, float]],
    drifts: Mapping[str, float],
) -> MapFrame:
    """What holds now, made small; ``sizes`` and ``growths`` are (n_clusters,)."""
    rows = np.empty(len(clusters), _ROW)
    limits = np.iinfo(np.int32)
    rows["size"] = np.minimum(sizes, limits.max)
    rows["growth"] = np.clip(growths, limits.min, limits.max)
    found = np.array([places.get(one, (np.nan, np.nan)) for one in clusters]).reshape(-1, 2)
    shown = np.where(np.isnan(found), _NOWHERE, np.rint(found * _UNIT))
    rows["x"], rows["y"] = shown.T
    rows["drift"] = [drifts.get(one, np.nan) for one in clusters]
    return MapFrame(time_ms, version, clusters, labels, rows)


def shown(frame: MapFrame) -> list[dict[str, Any]]:
    """The rows of a frame as replies show them."""
    x, y = frame.rows["x"].tolist(), frame.rows["y"].tolist()
    drifts = frame.rows["drift"].astype(np.float64).round(4)
    return [
        {
            "cluster": cluster,
            "label": label,
            "size": size,
            "x": None if across == _NOWHERE else across / _UNIT,
            "y": None if across == _NOWHERE else along / _UNIT,
            "growth": growth,
            "drift": None if drift != drift else drift,
        }
        for cluster, label, size, across, along, growth, drift in zip(
            frame.clusters, frame.labels, frame.rows["size"].tolist(), x, y,
            frame.rows["growth"].tolist(), drifts.tolist(), strict=True,
        )
    ]  # fmt: skip


class MapFrames:
    """The newest frames; safe for threads."""

    def __init__(
        self, *, step_s: int = STEP_S, span_s: int = SPAN_S, max_bytes: int = MAX_BYTES
    ) -> None:
        self.step_s, self._max_bytes = step_s, max_bytes
        self._frames: deque[MapFrame] = deque()
        self._n_frames = span_s // step_s
        self._n_bytes = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def n_bytes(self) -> int:
        """Of all frames, without their names."""
        return self._n_bytes

    def due_ms(self, now_ms: int) -> int | None:
        """The time of the frame that has to be taken now; None: it was taken."""
        time_ms = now_ms - now_ms % (self.step_s * 1000)
        newest = self._frames[-1].time_ms if self._frames else -1
        return time_ms if time_ms > newest else None

    def add(self, frame: MapFrame) -> None:
        """Take the next frame; the oldest go."""
        with self._lock:
            before = self._frames[-1] if self._frames else None
            if before is not None:  # names take more than all else
                clusters = before.clusters if before.clusters == frame.clusters else frame.clusters
                labels = before.labels if before.labels == frame.labels else frame.labels
                frame = MapFrame(frame.time_ms, frame.version, clusters, labels, frame.rows)
            self._frames.append(frame)
            self._n_bytes += frame.n_bytes
            while len(self._frames) > self._n_frames or (
                self._n_bytes > self._max_bytes and len(self._frames) > 1
            ):
                self._n_bytes -= self._frames.popleft().n_bytes

    def between(
        self, start_ms: int | None, stop_ms: int | None, step_s: int
    ) -> tuple[list[MapFrame], int]:
        """Frames of a span, the oldest first, one for each step; and the step.

        It is longer than was asked for where there would be more than `MAX_ROWS` rows. Of a step
        the newest frame is taken.
        """
        with self._lock:
            frames = [
                one
                for one in self._frames
                if (start_ms is None or one.time_ms >= start_ms)
                and (stop_ms is None or one.time_ms <= stop_ms)
            ]
        step_s = max(self.step_s, -(-step_s // self.step_s) * self.step_s)
        while True:
            chosen = list({one.time_ms // (step_s * 1000): one for one in frames}.values())
            if len(chosen) <= 1 or sum(len(one.rows) for one in chosen) <= MAX_ROWS:
                return chosen, step_s
            step_s *= 2

    def parts(self) -> dict[str, Any]:
        """All of it, by name, as a snapshot keeps it."""
        with self._lock:
            frames = [*self._frames]
        names: dict[tuple[int, int], int] = {}
        told = [names.setdefault((id(f.clusters), id(f.labels)), len(names)) for f in frames]
        first = dict(zip(reversed(told), reversed(frames), strict=True))
        rows = [frame.rows for frame in frames]
        return {
            "times": np.array([frame.time_ms for frame in frames], np.int64),
            "versions": np.array([f.version for f in frames], np.int64).reshape(-1, 2),
            "lengths": np.array([len(one) for one in rows], np.int64),
            "rows": np.concatenate([np.empty(0, _ROW), *rows]).view(np.uint8),
            "named": np.array(told, np.int64),
            "names": [(list(first[i].clusters), list(first[i].labels)) for i in range(len(first))],
        }

    def resume(self, parts: Mapping[str, Any]) -> None:
        """Become what `parts` told.

        Raises
        ------
        KeyError, TypeError, ValueError, IndexError
            That is not what frames tell.
        """
        names = [(tuple(clusters), list(labels)) for clusters, labels in parts["names"]]
        rows, at = parts["rows"].view(_ROW), 0
        told = (parts[name].tolist() for name in ("times", "versions", "lengths", "named"))
        for time_ms, (epoch, revision), n, of in zip(*told, strict=True):
            clusters, labels = names[of]
            if not n == len(clusters) == len(labels) or at + n > len(rows):
                raise ValueError(f"a frame of {n} rows")
            found = rows[at : at + n].copy()  # else each holds all of them
            self.add(MapFrame(time_ms, (epoch, revision), clusters, labels, found))
            at += n
