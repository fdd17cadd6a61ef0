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
from typing import Any, BinaryIO, Literal, Protocol, TextIO

import orjson
import structlog

from pipeline.telemetry.events import ALWAYS_FIELDS as ALWAYS_FIELDS
from pipeline.telemetry.events import COMMON_FIELDS as COMMON_FIELDS
from pipeline.telemetry.events import EVENTS as EVENTS
from pipeline.telemetry.events import LEVELS as LEVELS
from pipeline.telemetry.tracing import current


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

    processors: list[structlog.typing.Processor] = [structlog.processors.add_log_level, _traced]
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


def _traced(
    _logger: object, _method: str, line: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    span = current()
    if span is not None:
        line.update(span._asdict())
    return line


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
