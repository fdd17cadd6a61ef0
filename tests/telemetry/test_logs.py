"""Lines have the form that operators filter by."""

from __future__ import annotations

import ast
import io
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import structlog

from pipeline.telemetry.logs import (
    ALWAYS_FIELDS,
    COMMON_FIELDS,
    EVENTS,
    LEVELS,
    Throttle,
    configure,
    get_logger,
    hash_item_id,
    item_fields,
)

PACKAGE = Path(__file__).parent.parent.parent / "pipeline"


@pytest.fixture
def logging():
    """Configures with a stream of the test's own, and undoes it afterwards."""
    stream = io.StringIO()

    def configured(**options):
        given = {"service": "assigner", "instance": "a-0", "version": "1.2.3", "strict": True}
        configure(**{**given, "stream": stream, **options})
        return stream

    yield configured
    structlog.reset_defaults()


def lines(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


# The catalogue


@pytest.mark.parametrize("event", EVENTS.values(), ids=lambda event: event.name)
def test_an_event_of_the_catalogue_is_whole(event):
    assert event.level in LEVELS
    assert event.help.endswith(".")
    assert not set(event.fields) & {*ALWAYS_FIELDS, *COMMON_FIELDS}
    assert len(set(event.fields)) == len(event.fields)


def calls(path):
    """Log calls with a constant as their event: name, level, fields, where."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        holder = node.func.value
        named = holder.attr if isinstance(holder, ast.Attribute) else getattr(holder, "id", "")
        if named.strip("_") in {"log", "logger"} and node.func.attr in LEVELS and node.args:
            event = node.args[0]
            name = event.value if isinstance(event, ast.Constant) else None
            yield name, node.func.attr, {k.arg for k in node.keywords}, f"{path.name}:{node.lineno}"


def test_services_log_only_what_is_in_the_catalogue():
    for path in sorted((PACKAGE / "services").rglob("*.py")):
        for name, level, fields, where in calls(path):
            if name is None:
                continue  # made of parts: strict mode looks at it when it runs
            assert name in EVENTS, where
            assert level == EVENTS[name].level, where
            known = {*EVENTS[name].fields, *COMMON_FIELDS, "exc_info", None}
            assert fields <= known, (where, fields - known)


FIELDS = {
    "service_started": "device config_digest",
    "service_stopped": "reason duration_s",
    "config_rejected": "key problem",
    "partitions_assigned": "partitions",
    "partitions_revoked": "partitions",
    "partitions_lost": "partitions",
    "restore_started": "committed_offset",
    "restore_finished": "source records duration_s committed_offset",
    "snapshot_written": "bytes duration_s",
    "snapshot_rejected": "reason",
    "batch_committed": "batch_id records events dead duration_s",
    "transaction_aborted": "code retriable",
    "kafka_error": "code retriable retry_in_s",
    "producer_fenced": "code retriable",
    "record_dead": "reason item_id_hash suppressed",
    "model_installed": "kind",
    "sweep_finished": "reassigned duration_s kind",
    "revision_published": "duration_s kind moved_clusters",
    "invariant_violated": "invariant cluster_id expected found",
    "recluster_due": "recluster_id reason members",
    "recluster_started": "recluster_id reason members",
    "recluster_finished": "recluster_id reason members passes inertia_before inertia_after born "
    "split merged retired duration_s",
    "recluster_rejected": "recluster_id reason members passes inertia_before inertia_after",
    "recluster_failed": "recluster_id reason members duration_s problem",
    "drift_alarm_raised": "signal cluster_id statistic threshold",
    "drift_alarm_cleared": "signal cluster_id statistic threshold",
    "command_received": "command_id kind requested_by",
    "command_done": "command_id kind",
    "command_rejected": "command_id kind problem",
}
"""What an assigner and a reclusterer say, and the fields that operators may count upon."""


@pytest.mark.parametrize("name", FIELDS)
def test_an_event_that_is_promised_is_in_the_catalogue_and_somebody_writes_it(name):
    event = EVENTS[name]

    assert set(FIELDS[name].split()) <= set(event.fields)
    stem = re.sub("_(assigned|revoked|lost|raised|cleared)$", "_", name)  # f"partitions_{kind}"
    written = "".join(p.read_text(encoding="utf-8") for p in (PACKAGE / "services").rglob("*.py"))
    assert f'"{name}"' in written or f'f"{stem}{{' in written


# Lines of JSON


def test_a_line_says_who_and_when_before_what(logging):
    stream = logging()

    get_logger(partition=3).info("restore_finished", source="topic", records=7, duration_s=0.5)

    (line,) = lines(stream)
    assert list(line)[:6] == list(ALWAYS_FIELDS)
    assert (
        line.items()
        >= {
            "level": "info",
            "event": "restore_finished",
            "service": "assigner",
            "instance": "a-0",
            "version": "1.2.3",
            "partition": 3,
            "records": 7,
        }.items()
    )
    said_at = datetime.fromisoformat(line["timestamp"])
    assert said_at.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - said_at) < timedelta(minutes=1)


def test_lines_go_as_bytes_where_a_stream_has_them(logging):
    raw = io.BytesIO()
    text_stream = io.TextIOWrapper(raw, encoding="ascii")  # what it cannot hold is written too
    logging(stream=text_stream)

    get_logger().warning("record_dead", reason="key", problem="übel\nzwei", suppressed=0)

    text = raw.getvalue().decode("utf-8")
    assert text.count("\n") == 1
    assert json.loads(text)["problem"] == "übel\nzwei"


def test_a_value_without_a_word_in_json_is_still_written(logging):
    stream = logging()

    get_logger().info("partitions_assigned", partitions=np.arange(2), duration_s=Path("x"))

    (line,) = lines(stream)
    assert line["partitions"] == [0, 1]
    assert line["duration_s"] == "x"


def test_an_exception_is_one_field(logging):
    stream = logging()

    try:
        raise ValueError("no")
    except ValueError:
        get_logger().error("recluster_failed", reason="age", exc_info=True)

    (line,) = lines(stream)
    assert "ValueError: no" in line["exception"]


def test_lines_below_the_level_are_neither_written_nor_counted(logging):
    counted = []
    stream = logging(count=counted.append)

    get_logger().debug("batch_committed", records=1)
    get_logger().info("service_started", device="cpu")
    get_logger().warning("kafka_error", code="_TRANSPORT")

    assert [line["event"] for line in lines(stream)] == ["service_started", "kafka_error"]
    assert counted == ["info", "warning"]


# For people


def test_a_stream_that_is_no_terminal_gets_json_by_itself(logging):
    stream = logging(log_format="auto")

    get_logger().info("service_started", device="cpu")

    assert lines(stream)


def test_a_terminal_gets_lines_for_people(logging):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    logging(log_format="auto", stream=terminal)

    get_logger().info("service_started", device="cpu")

    text = terminal.getvalue()
    assert "service_started" in text
    assert "\x1b[" in text
    assert not text.startswith("{")


def test_the_console_form_has_no_colours_in_a_file(logging):
    stream = logging(log_format="console")

    get_logger().info("service_started", device="cpu")

    assert "\x1b[" not in stream.getvalue()
    assert "device=cpu" in stream.getvalue()


# The guard


@pytest.mark.parametrize(
    ("level", "event", "fields"),
    [
        ("info", "something_happened", {}),
        ("warning", "service_started", {}),
        ("info", "service_started", {"colour": "blue"}),
    ],
)
def test_strict_refuses_what_is_not_in_the_catalogue(logging, level, event, fields):
    logging()
    with pytest.raises(AssertionError, match=r"catalogue"):
        getattr(get_logger(), level)(event, **fields)

    stream = logging(strict=False)
    getattr(get_logger(), level)(event, **fields)

    assert lines(stream)[0]["event"] == event


# Items


def test_an_item_is_hidden_behind_its_hash_unless_the_policy_says_otherwise():
    assert item_fields(b"user-17", plain=True) == {"item_id": "user-17"}
    assert item_fields(b"user-17", plain=False) == {"item_id_hash": hash_item_id(b"user-17")}
    assert item_fields(None, plain=True) == item_fields(b"", plain=False) == {}
    assert hash_item_id(b"user-17") != hash_item_id(b"user-18")
    assert len(hash_item_id(b"user-17")) == 16


def test_an_item_id_that_is_no_text_or_too_long_does_not_break_the_line():
    shown = item_fields(b"\xff" + b"x" * 10_000, plain=True)["item_id"]

    assert json.dumps(shown)
    assert len(shown) == 512


def test_one_line_per_reason_and_minute_and_the_others_counted():
    throttle = Throttle(60.0)

    assert throttle.suppressed("key", now=0.0) == 0
    assert throttle.suppressed("key", now=1.0) is None
    assert throttle.suppressed("key", now=59.9) is None
    assert throttle.suppressed("decode", now=59.9) == 0
    assert throttle.suppressed("key", now=60.0) == 2
    assert throttle.suppressed("key", now=61.0) is None
