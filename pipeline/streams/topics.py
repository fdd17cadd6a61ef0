"""Which topics there are, how each is set up, and what is wrong with those that were found.

Pure: it compares settings and asks nobody. The assigner writes to the partition number a
record came from, so most topics have the input's count, and that count is for life.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pipeline.errors import ConfigError
from pipeline.streams.contract import TopicSettings

_DAY_MS: Final = 86_400_000
_RECORD_OVERHEAD_BYTES: Final = 64 * 1024
"""What a dead letter adds to the record it keeps: headers, and the batch around it."""

PARTITIONS_ARE_FOR_LIFE: Final = (
    "more or fewer partitions move keys, and an item would live twice: "
    "to grow, start with a new input topic and a new topics.prefix"
)


@dataclass(frozen=True, slots=True)
class TopicPolicy:
    """Names and sizes of the topics. The input belongs to the user, the others are derived."""

    input: str = "embedding-changes"
    """The topic that embeddings come from; dead letters go to its name with .dlq behind it."""
    prefix: str = "eddy."
    """What the names of all derived topics begin with; one prefix is one installation."""
    partitions: int = 6
    """Of the input and of what is written beside it: for life."""
    replication_factor: int = 1
    """Copies of each partition that `eddy topics create` asks for; 3 in production."""

    def __post_init__(self) -> None:
        for option, least in (("partitions", 1), ("replication_factor", 1)):
            value = getattr(self, option)
            if value < least:
                raise ConfigError(f"topics.{option} is {value}, but must be at least {least}")
        if not self.input:
            raise ConfigError("topics.input is empty, but must name the input topic")
        for name in self.names:
            _check_name(name)
        if len(set(self.names)) < len(self.names):
            raise ConfigError(
                f"topics.input is {self.input!r}, but with topics.prefix {self.prefix!r} "
                "that is also the name of a derived topic"
            )

    @property
    def changes(self) -> str:
        """What users subscribe to: one event per change of an item's cluster."""
        return f"{self.prefix}cluster-changes"

    @property
    def assignments(self) -> str:
        """The present cluster of every item."""
        return f"{self.prefix}cluster-assignments"

    @property
    def vectors(self) -> str:
        """Vectors that the input cannot give back."""
        return f"{self.prefix}item-vectors"

    @property
    def statistics(self) -> str:
        """Sufficient statistics per partition and cluster, and every partition's head."""
        return f"{self.prefix}cluster-stats"

    @property
    def model(self) -> str:
        """Manifests and centroids."""
        return f"{self.prefix}cluster-model"

    @property
    def drift(self) -> str:
        """Alarms, raised and cleared."""
        return f"{self.prefix}cluster-drift"

    @property
    def lifecycle(self) -> str:
        """Born, split, merged, retired, installed."""
        return f"{self.prefix}cluster-lifecycle"

    @property
    def commands(self) -> str:
        """Requests to the reclusterer."""
        return f"{self.prefix}recluster-commands"

    @property
    def dead_letters(self) -> str:
        """Input records that cannot be used, with the reason."""
        return f"{self.input}.dlq"

    @property
    def names(self) -> tuple[str, ...]:
        """All of them, the input first."""
        return (
            self.input,
            self.changes,
            self.assignments,
            self.vectors,
            self.statistics,
            self.model,
            self.drift,
            self.lifecycle,
            self.commands,
            self.dead_letters,
        )


class Severity(StrEnum):
    """Whether a service may run on it."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with one topic, as a sentence that says what to do."""

    severity: Severity
    topic: str
    message: str


def expected_topics(policy: TopicPolicy, max_record_bytes: int) -> tuple[TopicSettings, ...]:
    """Every topic as ``eddy topics create`` makes it, the input first.

    Parameters
    ----------
    max_record_bytes
        Key, value and headers of the largest input record; a dead letter must hold it.
    """
    n = policy.partitions
    compacted = {"cleanup.policy": "compact", "delete.retention.ms": str(7 * _DAY_MS)}

    def deleted(days: int | None) -> dict[str, str]:
        retention_ms = -1 if days is None else days * _DAY_MS
        return {"cleanup.policy": "delete", "retention.ms": str(retention_ms)}

    dead_letter_bytes = max_record_bytes + _RECORD_OVERHEAD_BYTES
    return (
        # a day's lag of compaction is what the check below asks of an input
        TopicSettings(policy.input, n, compacted | {"min.compaction.lag.ms": str(_DAY_MS)}),
        TopicSettings(policy.changes, n, deleted(7)),
        TopicSettings(policy.assignments, n, compacted),
        TopicSettings(policy.vectors, n, compacted),
        TopicSettings(policy.statistics, n, compacted),
        TopicSettings(policy.model, 1, compacted),
        TopicSettings(policy.drift, 1, deleted(30)),
        TopicSettings(policy.lifecycle, 1, deleted(None)),
        TopicSettings(policy.commands, 1, deleted(7)),
        TopicSettings(
            policy.dead_letters, n, deleted(30) | {"max.message.bytes": str(dead_letter_bytes)}
        ),
    )


def check_topics(
    found: Mapping[str, TopicSettings],
    policy: TopicPolicy,
    max_record_bytes: int,
    *,
    only: Iterable[str] | None = None,
) -> list[Problem]:
    """What breaks a promise (errors) or may break one some day (warnings).

    Parameters
    ----------
    found
        By full name, as the broker has them; a missing one is an error.
    only
        Full names of the topics to look at, for a service that needs some of them; None: all.

    Notes
    -----
    Retention of deleted topics is the operator's affair and is not compared. A setting that the
    broker did not tell (no permission to describe it) is passed over, but for the policy.
    """
    wanted = None if only is None else frozenset(only)
    problems: list[Problem] = []
    for expected in expected_topics(policy, max_record_bytes):
        if wanted is not None and expected.name not in wanted:
            continue
        settings = found.get(expected.name)
        if settings is None:
            message = (
                f"{expected.name} does not exist: run eddy topics create; where the broker has "
                "access control it may only be hidden: see eddy topics acls"
            )
            problems.append(Problem(Severity.ERROR, expected.name, message))
            continue
        is_input = expected.name == policy.input
        problems += _count_problems(settings, expected, is_input=is_input)
        if is_input:
            problems += _input_problems(settings)
        else:
            problems += _policy_problems(settings, expected)
    return problems


def cleanup_policy(settings: TopicSettings) -> str:
    """The cleanup policy in one spelling: ``compact``, ``delete`` or ``compact,delete``."""
    words = settings.config.get("cleanup.policy", "").split(",")
    return ",".join(sorted(word.strip() for word in words if word.strip()))


def keeps_vectors(settings: TopicSettings) -> bool:
    """Whether an input of this policy is a store of vectors: exactly ``compact``, nothing else.

    With any other policy a row may go while its item lives, so Eddy keeps its own copy.
    """
    return cleanup_policy(settings) == "compact"


def _check_name(name: str) -> None:
    legal = all(c.isascii() and (c.isalnum() or c in "._-") for c in name)
    if not legal or len(name) > 249 or name in (".", ".."):
        raise ConfigError(
            f"{name!r} is no name of a topic: up to 249 letters, digits, dots, dashes and "
            "underscores; see topics.input and topics.prefix"
        )


def _count_problems(
    settings: TopicSettings, expected: TopicSettings, *, is_input: bool
) -> list[Problem]:
    n, n_expected = settings.n_partitions, expected.n_partitions
    if n == n_expected:
        return []
    if is_input:
        message = (
            f"{settings.name} has {n} partitions, but topics.partitions is {n_expected}. If "
            f"nothing was clustered yet, set topics.partitions to {n}; else "
        )
    else:
        message = f"{settings.name} has {n} partitions, but must have {n_expected}: "
    return [Problem(Severity.ERROR, settings.name, message + PARTITIONS_ARE_FOR_LIFE)]


def _input_problems(settings: TopicSettings) -> list[Problem]:
    policy = cleanup_policy(settings)
    if not policy:
        message = (
            f"the broker does not tell the cleanup.policy of {settings.name}, and where the "
            "vectors are kept depends on it: permit DescribeConfigs on it (eddy topics acls)"
        )
        return [Problem(Severity.ERROR, settings.name, message)]
    if "compact" not in policy:
        return []
    problems = []
    for option in ("delete.retention.ms", "min.compaction.lag.ms"):
        value_ms = _number(settings, option)
        if value_ms is not None and value_ms < _DAY_MS:
            message = (
                f"{settings.name} has {option}={value_ms}, less than a day ({_DAY_MS}): an "
                "assigner that is further behind can miss a tombstone until it restores from "
                "the topics; raise it"
            )
            problems.append(Problem(Severity.WARNING, settings.name, message))
    return problems


def _policy_problems(settings: TopicSettings, expected: TopicSettings) -> list[Problem]:
    problems = []
    policy, policy_expected = cleanup_policy(settings), cleanup_policy(expected)
    if not policy:
        message = (
            f"the broker does not tell the cleanup.policy of {settings.name}, and another than "
            f"{policy_expected} loses state: permit DescribeConfigs on it (eddy topics acls)"
        )
        problems.append(Problem(Severity.ERROR, settings.name, message))
    elif policy != policy_expected:
        message = (
            f"{settings.name} has cleanup.policy={policy}, but must have "
            f"{policy_expected}: set it with the broker's own tools"
        )
        problems.append(Problem(Severity.ERROR, settings.name, message))
    largest, needed = _number(settings, "max.message.bytes"), _number(expected, "max.message.bytes")
    if largest is not None and needed is not None and largest < needed:
        message = (
            f"{settings.name} has max.message.bytes={largest}, but a dead letter takes up to "
            f"{needed} (limits.max_record_bytes and its headers): one of that size would stop "
            "its partition for ever; raise it"
        )
        problems.append(Problem(Severity.ERROR, settings.name, message))
    return problems


def _number(settings: TopicSettings, option: str) -> int | None:
    value = settings.config.get(option)
    return None if value is None else int(value)
