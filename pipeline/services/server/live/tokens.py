"""Resume tokens: how far a client is in the topics of events, so that any replica can go on.

Opaque to the client, and no secret: whoever changes one gets events that he may read anyhow.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from pipeline.services.server.live.ring import EVENT_CHANNELS, Lane
from pipeline.services.server.problems import faulty

MAX_TOKEN: Final = 2048
"""Characters: 250 partitions of 2^35 events each."""
_VERSION: Final = 1
_DIGEST_BYTES: Final = 8
_MAX_NUMBER_BYTES: Final = 10


class Token(NamedTuple):
    """What a token says."""

    topics: bytes
    """Of the topics' ids; those made anew have others."""
    epoch: int
    positions: dict[Lane, int]
    """Lane -> the first offset that the client has not seen."""


def topics_digest(ids: Sequence[str]) -> bytes:
    """For `Token.topics`, of the ids of the topics of events."""
    return hashlib.blake2b("\n".join(ids).encode(), digest_size=_DIGEST_BYTES).digest()


def write_token(topics: bytes, epoch: int, positions: Mapping[Lane, int]) -> str:
    """A token as text; "" where so many partitions do not fit into one."""
    out = bytearray([_VERSION]) + topics
    _put(out, epoch)
    for channel in EVENT_CHANNELS:
        lanes = {partition: at for (name, partition), at in positions.items() if name == channel}
        n = max(lanes, default=-1) + 1
        _put(out, n)
        for partition in range(n):
            _put(out, lanes.get(partition, -1) + 1)
    text = base64.urlsafe_b64encode(bytes(out)).decode().rstrip("=")
    return text if len(text) <= MAX_TOKEN else ""


def read_token(text: str, place: str) -> Token:
    """What a token says; ``place`` is where it stood, for the problem.

    Raises
    ------
    ProblemError
        ``invalid-request``: it is none.
    """
    try:
        if len(text) > MAX_TOKEN:
            raise ValueError("too long")
        raw = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), b"-_", True)
        if len(raw) < 1 + _DIGEST_BYTES or raw[0] != _VERSION:
            raise ValueError("another version")
        numbers = _numbers(raw[1 + _DIGEST_BYTES :])
        epoch = next(numbers)
        positions: dict[Lane, int] = {}
        for channel in EVENT_CHANNELS:
            for partition in range(next(numbers)):
                offset = next(numbers)
                if offset:
                    positions[channel, partition] = offset - 1
        if next(numbers, None) is not None:
            raise ValueError("something follows")
    except (UnicodeEncodeError, binascii.Error, ValueError, StopIteration) as error:
        raise faulty(place, "this is no resume token") from error
    return Token(raw[1 : 1 + _DIGEST_BYTES], epoch, positions)


def _put(out: bytearray, number: int) -> None:
    """Seven bits a byte, the lowest first; the highest bit says that more follow."""
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)


def _numbers(raw: bytes) -> Iterator[int]:
    number, n_bytes = 0, 0
    for byte in raw:
        number |= (byte & 0x7F) << (7 * n_bytes)
        n_bytes += 1
        if n_bytes > _MAX_NUMBER_BYTES:
            raise ValueError("a number too long")
        if not byte & 0x80:
            yield number
            number, n_bytes = 0, 0
    if n_bytes:
        raise ValueError("it breaks off")
