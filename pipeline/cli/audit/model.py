"""The model: its topic folded, its digest, and what else a manifest promises."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.cli.audit.tally import NewestModel, Tally, Version, version_text
from pipeline.messages.records import Record

_EDV1 = struct.Struct("<4sBBHIQ")


def fold_model(
    records: Iterable[Record], tally: Tally
) -> tuple[NewestModel | None, dict[str, Any]]:
    """The newest model of the topic, and every value that is left in it by key."""
    values: dict[str, bytes | None] = {}
    last: Version = (0, -1)
    newest: dict[str, Any] | None = None
    for record in records:
        key = (record.key or b"").decode("utf-8", "replace")
        values[key] = record.value
        if key != "manifest" or record.value is None:
            continue
        newest = json.loads(record.value)
        version = (int(newest["epoch"]), int(newest["revision"]))
        tally.n_checked += 1
        if version <= last:
            tally.broken(f"model {version_text(version)} was written after {version_text(last)}")
        last = version
    if newest is None:
        return None, {}
    n_dims = int(newest["dimensions"])
    centroids = np.full((len(newest["clusters"]), n_dims), np.nan, np.float32)
    for label, cluster in enumerate(newest["clusters"]):
        value = values.get(f"{newest['epoch']}/{cluster}")
        vector = edv1(value, n_dims, min_tail=16) if value is not None else None
        if vector is None:
            tally.broken(f"{cluster} of model {version_text(last)} has no readable centroid")
        else:
            centroids[label] = vector
    return NewestModel(newest, centroids), dict(values)


def check_model(model: NewestModel, values: Mapping[str, bytes | None], tally: Tally) -> None:
    """Digest, epoch record, cluster numbers, and unit length under cosine."""
    manifest = model.manifest
    digest = hashlib.sha256(model.centroids.astype("<f4").tobytes()).hexdigest()
    tally.n_checked += 1
    if digest != manifest["digest"]:
        tally.broken(
            f"the centroids of model {version_text(model.version)} have the digest "
            f"{digest[:12]}..., but its manifest says {str(manifest['digest'])[:12]}..."
        )
    kept = values.get(str(manifest["epoch"]))
    if kept is None or json.loads(kept) != manifest:
        tally.broken(f"the record of epoch {manifest['epoch']} is not its newest manifest")
    numbers = [int(cluster.removeprefix("c")) for cluster in model.clusters]
    if len(set(numbers)) != len(numbers):
        tally.broken(f"model {version_text(model.version)} names a cluster twice")
    if numbers and max(numbers) >= int(manifest["next_cluster_number"]):
        tally.broken(f"c{max(numbers)} exists, but the next number is not above it")
    if manifest["metric"] == "cosine":
        norms = np.sqrt((model.centroids.astype(np.float64) ** 2).sum(axis=1))
        for label in np.flatnonzero(np.abs(norms - 1) > 1e-5):
            tally.broken(f"{model.clusters[label]} has the length {norms[label]:.6f}, not 1")


def edv1(value: bytes, n_dims: int, *, min_tail: int = 0) -> NDArray[np.float32] | None:
    """The float32 vector of a record of ours; None if it is not one.

    What may stand behind it is of ``min_tail`` bytes at least, and not looked at; 0: nothing may.
    """
    n_behind = len(value) - 20 - 4 * n_dims
    if n_behind < min_tail or (n_behind and not min_tail):
        return None
    magic, dtype, flags, reserved, dims, _ = _EDV1.unpack_from(value)
    if (magic, dtype, flags, reserved, dims) != (b"EDV1", 0, 0, 0, n_dims):
        return None
    return np.frombuffer(value, "<f4", count=n_dims, offset=20).astype(np.float32)
