"""Cursors: where a page ended, signed, so that what comes back is what was handed out.

A cursor is a mark in a stable order, not a place in a list: what is added or taken away between two
pages shifts nothing. It belongs to one question, one set of filters and one epoch.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pipeline.errors import RecordError
from pipeline.messages.codec import json_bytes, json_value
from pipeline.services.server.problems import ProblemError

DEFAULT_LIMIT: Final = 50
MAX_LIMIT: Final = 500
_SIGNATURE_BYTES: Final = 12
MAX_CURSOR: Final = 4096
"""Characters: an item's id of 512 bytes fits several times."""


@dataclass(frozen=True, slots=True)
class Cursors:
    """Makes and reads them; replicas with the same key read each other's."""

    key: bytes

    def make(
        self, question: str, filters: Mapping[str, Any], epoch: int, mark: Sequence[Any]
    ) -> str:
        """A cursor behind ``mark``, a list of numbers and texts."""
        body = json_bytes([_digest(question, filters), epoch, list(mark)])
        return base64.urlsafe_b64encode(self._sign(body) + body).decode().rstrip("=")

    def read(
        self, cursor: str | None, question: str, filters: Mapping[str, Any], epoch: int
    ) -> list[Any] | None:
        """The mark; None without a cursor.

        Raises
        ------
        ProblemError
            ``invalid-cursor``.
        """
        if cursor is None:
            return None
        try:
            raw = base64.b64decode(
                cursor.encode("ascii") + b"=" * (-len(cursor) % 4), b"-_", validate=True
            )
            signature, body = raw[:_SIGNATURE_BYTES], raw[_SIGNATURE_BYTES:]
            if not hmac.compare_digest(signature, self._sign(body)):
                raise _invalid("it was not handed out here, or was changed")
            about, of_epoch, mark = json_value(body)
        except (UnicodeEncodeError, binascii.Error, ValueError, RecordError) as error:
            raise _invalid("it is none") from error
        if about != _digest(question, filters):
            raise _invalid("it belongs to another request, or to other filters")
        if of_epoch != epoch:
            raise _invalid(f"it is of epoch {of_epoch}, and the model's is {epoch} now")
        assert isinstance(mark, list)
        return mark

    def _sign(self, body: bytes) -> bytes:
        return hmac.digest(self.key, body, "sha256")[:_SIGNATURE_BYTES]


def _digest(question: str, filters: Mapping[str, Any]) -> str:
    text = json_bytes([question, sorted((k, v) for k, v in filters.items() if v is not None)])
    return hashlib.blake2b(text, digest_size=8).hexdigest()


def _invalid(why: str) -> ProblemError:
    return ProblemError("invalid-cursor", f"the cursor cannot be used: {why}")
