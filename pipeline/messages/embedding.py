"""Two embedding models at once: which one stands, and a batch with vectors of both.

While the next embedding model is on its way, records of both are good. A record that names no
model counts as one of the first that there was, so from the first change on every record has to
name its own: else vectors that cannot be compared would pass for one another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

from pipeline.errors import Reason, RecordError
from pipeline.messages.intake import Decoded, Dump, Parse, decode_batch
from pipeline.messages.policy import (
    EmbeddingPolicy,
    LimitPolicy,
    NamedEmbeddingPolicy,
    NextEmbedding,
)
from pipeline.messages.records import Headers, Record

_HEADER = "embedding-model"
_OFFSET_HEADER = "eddy-offset"
_SUCCESSOR = b"\xff"
"""Before an item's id, and in no id: there it is no UTF-8."""


def in_force(
    configured: EmbeddingPolicy, embedding_model: str | None, embedding_since: int | None
) -> EmbeddingPolicy:
    """What a vector has to be under the newest model.

    Parameters
    ----------
    configured
        It may still name the model that was, with the one that stands now as its next.
    embedding_model, embedding_since
        As the newest manifest says them.

    Returns
    -------
    EmbeddingPolicy
        With ``next`` while that is still to come. Where the manifest fits neither, this is what
        was configured: the caller compares.
    """
    successor = configured.successor
    if successor is not None and embedding_model == successor.model:
        return successor
    if embedding_since is None or embedding_model != configured.model:
        return configured
    known = {one.name: getattr(configured, one.name) for one in fields(configured)}
    return NamedEmbeddingPolicy(**known)


def without_next(embedding: EmbeddingPolicy) -> EmbeddingPolicy:
    """The policy of its own model alone."""
    known = {one.name: getattr(embedding, one.name) for one in fields(embedding)}
    return type(embedding)(**{**known, "next": NextEmbedding()})


def model_headers(embedding: EmbeddingPolicy) -> Headers:
    """The headers beside a vector that say whose it is; none where there was but one model."""
    if not embedding.must_name:
        return ()
    assert embedding.model is not None, "one that took over has a name"
    return ((_HEADER, embedding.model.encode()),)


def record_model(record: Record) -> str | None:
    """What `model_headers` wrote; None: the first model that there was."""
    for name, value in reversed(record.headers):
        if name == _HEADER and value:
            return value.decode("utf-8", "replace")
    return None


def successor_key(item: bytes) -> bytes:
    """The key in `item-vectors` of an item's vector by the next model, beside that of its own."""
    return _SUCCESSOR + item


def successor_item(key: bytes) -> bytes | None:
    """The item of a `successor_key`; None of any other key."""
    return key.removeprefix(_SUCCESSOR) if key.startswith(_SUCCESSOR) else None


def offset_headers(offset: int) -> Headers:
    """The header that says which record of the input a vector is from."""
    return ((_OFFSET_HEADER, b"%d" % offset),)


def record_offset(record: Record) -> int:
    """What `offset_headers` wrote, or RecordError."""
    for name, value in reversed(record.headers):
        if name == _OFFSET_HEADER and value is not None and value.isdigit():
            return int(value)
    raise RecordError(Reason.DECODE, f"there is no {_OFFSET_HEADER}")


def decode_both(
    records: Sequence[Record],
    embedding: EmbeddingPolicy,
    limits: LimitPolicy,
    parse: Parse,
    dump: Dump,
) -> Decoded:
    """See `pipeline.messages.codec.decode`; without a next model this is `decode_batch`."""
    batch = decode_batch(records, embedding, limits, parse, dump)
    successor = embedding.successor
    if successor is None or not batch.errors:
        return batch
    foreign = [i for i, error in batch.errors.items() if error.reason is Reason.EMBEDDING_MODEL]
    if not foreign:
        return batch
    again = decode_batch([records[i] for i in foreign], successor, limits, parse, dump)
    return _joined(batch, foreign, again)


def _joined(batch: Decoded, foreign: Sequence[int], again: Decoded) -> Decoded:
    """A batch, and what its records of another embedding model were found to be."""
    errors, sequences, metadata = dict(batch.errors), list(batch.sequences), dict(batch.metadata)
    next_rows: dict[int, int] = {}
    for place, i in enumerate(foreign):
        row, error = int(again.rows[place]), again.errors.get(place)
        if row >= 0:
            del errors[i]
            next_rows[i], sequences[i] = row, again.sequences[place]
            if place in again.metadata:
                metadata[i] = again.metadata[place]
        elif error is not None and error.reason is not Reason.EMBEDDING_MODEL:
            errors[i] = error  # one of the next model, but a bad one
    next_vectors = again.vectors if next_rows else None
    return Decoded(batch.vectors, batch.rows, sequences, metadata, errors, next_vectors, next_rows)
