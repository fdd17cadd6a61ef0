"""Log lines are events with fields; this module is the only one that knows structlog.

An event is a name of `EVENTS`, past tense, never formatted; what happened stands in the
fields, with their units. JSON lines are for machines, one object each; the console form
is for people on a terminal. Services log, the core returns.

The catalogue is closed: under ``strict`` (the tests) a name, level or field that is not
in it is an ``AssertionError``, so what operators filter by cannot drift away.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final, Literal, Protocol, TextIO

import orjson
import structlog

LEVELS: Final = ("debug", "info", "warning", "error")

COMMON_FIELDS: Final = frozenset(
    {"trace_id", "span_id", "topic", "partition", "offset", "epoch", "revision"}
)
"""Allowed on every line, where they exist."""

ALWAYS_FIELDS: Final = ("timestamp", "level", "event", "service", "instance", "version")
"""On every line, in this order, before the event's own."""


@dataclass(frozen=True, slots=True)
class Event:
    """One row of the catalogue."""

    name: str
    level: str
    help: str
    fields: tuple[str, ...]


EVENTS: Final[Mapping[str, Event]] = {
    event.name: event
    for event in (
        Event(
            "service_started",
            "info",
            "The process begins its work.",
            ("device", "config_digest", "metrics_port"),
        ),
        Event(
            "service_stopped",
            "info",
            "The process ends; nothing is left half done.",
            ("reason", "duration_s"),
        ),
        Event(
            "service_failed",
            "error",
            "The process ends by an error that somebody has to act on.",
            ("code", "problem", "retriable"),
        ),
        Event(
            "config_rejected",
            "error",
            "A setting, or the set-up of a topic, cannot be obeyed: the process ends.",
            ("key", "problem"),
        ),
        Event(
            "partitions_assigned",
            "info",
            "Partitions came to this process.",
            ("partitions", "duration_s"),
        ),
        Event(
            "partitions_revoked",
            "info",
            "Partitions were handed on, after their last commit.",
            ("partitions", "duration_s"),
        ),
        Event(
            "partitions_lost",
            "warning",
            "Partitions went without a chance to commit.",
            ("partitions", "duration_s"),
        ),
        Event(
            "restore_started",
            "info",
            "A partition's state is being read back.",
            ("committed_offset", "barrier_offset"),
        ),
        Event(
            "restore_finished",
            "info",
            "A partition's state is whole again.",
            ("source", "records", "duration_s", "committed_offset", "barrier_offset"),
        ),
        Event(
            "snapshot_written",
            "info",
            "A copy of a partition's state is on disk.",
            ("records", "bytes", "duration_s"),
        ),
        Event(
            "snapshot_failed",
            "warning",
            "No copy could be written; the topics have everything.",
            ("problem",),
        ),
        Event(
            "snapshot_rejected",
            "warning",
            "A copy is not used, and was removed: the topics are read instead.",
            ("reason",),
        ),
        Event(
            "batch_committed",
            "debug",
            "One transaction is visible.",
            ("batch_id", "records", "events", "dead", "duration_s"),
        ),
        Event(
            "transaction_aborted",
            "warning",
            "Nothing of a transaction is visible; its records come again.",
            ("batch_id", "code", "retriable", "retry_in_s"),
        ),
        Event(
            "kafka_error",
            "warning",
            "The broker or the way to it failed; it is tried again.",
            ("batch_id", "code", "problem", "retriable", "retry_in_s"),
        ),
        Event(
            "producer_fenced",
            "error",
            "Another process has this one's transactional id: this one ends.",
            ("batch_id", "code", "problem", "retriable"),
        ),
        Event(
            "record_dead",
            "warning",
            "A record became a dead letter; one line per reason and minute.",
            ("reason", "problem", "item_id", "item_id_hash", "suppressed"),
        ),
        Event(
            "model_installed",
            "info",
            "From here on records are assigned by this model.",
            ("kind", "moved_clusters", "duration_s"),
        ),
        Event(
            "sweep_finished",
            "info",
            "Every member of this process is proved under the newest model.",
            ("kind", "reassigned", "duration_s"),
        ),
        Event(
            "revision_published",
            "info",
            "Centroids have followed their members.",
            ("kind", "moved_clusters", "duration_s"),
        ),
        Event(
            "drift_alarm_raised",
            "warning",
            "The stream is not what the model was fitted on.",
            ("signal", "cluster_id", "statistic", "threshold", "effect"),
        ),
        Event(
            "drift_alarm_cleared",
            "info",
            "The stream is as it was again, or another epoch was fitted on it.",
            ("signal", "cluster_id", "statistic", "threshold", "effect"),
        ),
        Event(
            "recluster_due",
            "info",
            "A full fit is going to start.",
            ("recluster_id", "reason", "members"),
        ),
        Event(
            "recluster_started",
            "info",
            "A full fit runs.",
            ("recluster_id", "reason", "members"),
        ),
        Event(
            "recluster_finished",
            "info",
            "A new epoch is published.",
            (
                "recluster_id",
                "reason",
                "members",
                "passes",
                "duration_s",
                "inertia_before",
                "inertia_after",
                "born",
                "split",
                "merged",
                "retired",
            ),
        ),
        Event(
            "recluster_rejected",
            "info",
            "The fit lost against the model in use, which stays.",
            (
                "recluster_id",
                "reason",
                "members",
                "passes",
                "duration_s",
                "inertia_before",
                "inertia_after",
            ),
        ),
        Event(
            "recluster_failed",
            "error",
            "A fit ended without a result; the model in use stays.",
            ("recluster_id", "reason", "members", "duration_s", "problem"),
        ),
        Event(
            "command_received",
            "info",
            "Somebody asked for something.",
            ("command_id", "kind", "requested_by"),
        ),
        Event(
            "command_done",
            "info",
            "It is carried out.",
            ("command_id", "kind", "requested_by"),
        ),
        Event(
            "command_rejected",
            "warning",
            "It is not carried out, and why.",
            ("command_id", "kind", "requested_by", "problem"),
        ),
    )
}


class Logger(Protocol):
    """What a service holds; a method per level, and the fields by name."""

    def bind(self, **fields: object) -> Logger: ...
    def debug(self, event: str, **fields: object) -> object: ...
    def info(self, event: str, **fields: object) -> object: ...
    def warning(self, event: str, **fields: object) -> object: ...
    def error(self, event: str, **fields: object) -> object: ...


def configure(
    *,
    service: str,
    instance: str,
    version: str,
    log_format: Literal["auto", "console", "json"] = "auto",
    level: str = "info",
    stream: TextIO | None = None,
    strict: bool = False,
    count: Callable[[str], None] | None = None,
) -> None:
    """Decide, once per process, what becomes of its log lines.

    Parameters
    ----------
    log_format
        ``auto``: ``console`` if ``stream`` is a terminal, else ``json``.
    level
        The lowest level that is written.
    stream
        Where to; None is the standard output.
    strict
        A line that is not in the catalogue is an ``AssertionError``.
    count
        Called with the level of every line written: the hook of ``eddy_log_events_total``.
    """
    to = sys.stdout if stream is None else stream
    if log_format == "auto":
        log_format = "console" if to.isatty() else "json"
    always = {"service": service, "instance": instance, "version": version}

    processors: list[structlog.typing.Processor] = [structlog.processors.add_log_level]
    if strict:
        processors.append(_only_catalogued)
    if count is not None:
        processors.append(_counted(count))
    processors += [
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    factory: Callable[..., Any]
    binary: BinaryIO | None = getattr(to, "buffer", None)
    if log_format == "console":
        processors.append(
            structlog.dev.ConsoleRenderer(
                colors=to.isatty(),
                sort_keys=False,
                exception_formatter=structlog.dev.plain_traceback,
            )
        )
        factory = structlog.WriteLoggerFactory(file=to)
    elif binary is not None:
        processors.append(_json_line(always))
        factory = structlog.BytesLoggerFactory(file=binary)
    else:  # a StringIO has no bytes below it
        processors += [_json_line(always), _decoded]
        factory = structlog.WriteLoggerFactory(file=to)

    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=factory,
        cache_logger_on_first_use=False,
    )


def get_logger(**bound: object) -> Logger:
    """Make a logger whose lines all hold ``bound``; call it after `configure`."""
    logger: Logger = structlog.get_logger().bind(**bound)
    return logger


def hash_item_id(key: bytes) -> str:
    """Name an item without showing its id: the same in every process, 16 hex digits.

    Whoever can list the ids can find the one behind a hash; it hides them from a log's
    readers, not from the operator.
    """
    return hashlib.blake2b(key, digest_size=8).hexdigest()


def item_fields(key: bytes | None, *, plain: bool) -> dict[str, object]:
    """Fields of a log line that say which item it is about; ``plain`` is the policy's choice."""
    if not key:
        return {}
    if plain:
        return {"item_id": key[:512].decode("utf-8", "replace")}
    return {"item_id_hash": hash_item_id(key)}


@dataclass(slots=True)
class Throttle:
    """Lets one line per key through in a while, and counts the others.

    The keys are a closed set, such as the reasons of dead letters.
    """

    interval_s: float = 60.0
    _state: dict[str, tuple[float, int]] = field(init=False, default_factory=dict)

    def suppressed(self, key: str, now: float) -> int | None:
        """How many lines were kept back since the last one; None: keep this one back too."""
        last = self._state.get(key)
        if last is None or now - last[0] >= self.interval_s:
            self._state[key] = (now, 0)
            return 0 if last is None else last[1]
        self._state[key] = (last[0], last[1] + 1)
        return None


def _only_catalogued(
    _logger: object, _method: str, line: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    event = EVENTS.get(line["event"])
    assert event is not None, f"the log event {line['event']!r} is not in the catalogue"
    assert line["level"] == event.level, (
        f"{event.name} is logged at level {line['level']}, but the catalogue says {event.level}"
    )
    others = line.keys() - COMMON_FIELDS - set(event.fields) - {"event", "level", "exc_info"}
    assert not others, f"{event.name} has no field {', '.join(sorted(others))} in the catalogue"
    return line


def _counted(count: Callable[[str], None]) -> structlog.typing.Processor:
    def processor(
        _logger: object, _method: str, line: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        count(line["level"])
        return line

    return processor


def _json_line(always: Mapping[str, str]) -> structlog.typing.Processor:
    def processor(_logger: object, _method: str, line: MutableMapping[str, Any]) -> bytes:
        ordered = {
            "timestamp": line.pop("timestamp"),
            "level": line.pop("level"),
            "event": line.pop("event"),
            **always,
            **line,
        }
        # str() of what JSON has no word for: a line is never lost to its own form
        return orjson.dumps(
            ordered, default=str, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
        )

    return processor


def _decoded(_logger: object, _method: str, line: Any) -> str:
    text: str = line.decode()
    return text
