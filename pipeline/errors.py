"""Who can act on it decides the class.

* PipelineError
  - RecordError            the producer of the record: it becomes a dead letter
  - TransientError         nobody, time does: abort, rewind, try again
    - AbortedError
  - FatalError             the operator: stop and say why; nothing was committed
    - UsageError           wrong use of a command
    - ConfigError          a setting cannot be obeyed
    - TopicError           a topic breaks a promise, or its log does not fit the state
    - UnreachableError     no broker answers
    - FencedError          another process took this one's place

A defect of ours is an ``AssertionError`` and no part of the tree.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar


class Reason(StrEnum):
    """Why a record is a dead letter: a header's value and a metric's label."""

    KEY = "key"
    CONTENT_TYPE = "content_type"
    DECODE = "decode"
    DIMENSION = "dimension"
    NOT_FINITE = "not_finite"
    ZERO_VECTOR = "zero_vector"
    OUT_OF_RANGE = "out_of_range"
    EMBEDDING_MODEL = "embedding_model"
    TOO_LARGE = "too_large"
    LIMIT = "limit"
    POISON = "poison"


class PipelineError(Exception):
    """Base of everything this package raises on purpose."""

    exit_code: ClassVar[int] = 70
    """What a command that ends by this error returns to the shell."""


class RecordError(PipelineError):
    """One record cannot be used; the ones around it can."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def kept(self) -> RecordError:
        """Itself, to be stored beside what it was found in: without the frames it came through.

        They hold the batch and the batch holds the error, so all of it would wait for the
        collector of circles, which comes late (`pipeline.services.launch`).
        """
        self.__traceback__ = self.__cause__ = self.__context__ = None
        return self


class TransientError(PipelineError):
    """The same work may succeed later."""


class AbortedError(TransientError):
    """Nothing of the transaction is visible, and its offsets are not committed.

    ``code`` is the broker's name for the cause, of bounded cardinality.
    """

    def __init__(self, message: str, *, code: str = "aborted") -> None:
        super().__init__(message)
        self.code = code


class FatalError(PipelineError):
    """Going on would break a promise."""

    exit_code = 1


class UsageError(FatalError):
    """A command was given something it cannot work with."""

    exit_code = 2


class ConfigError(FatalError):
    """A setting cannot be obeyed."""

    exit_code = 3


class TopicError(FatalError):
    """A topic is missing, set up wrongly, or its log does not fit what was committed."""

    exit_code = 3


class UnreachableError(FatalError):
    """No broker answers within the time given."""

    exit_code = 4


class FencedError(FatalError):
    """Another process has this one's transactional id: it goes on, we stop."""
