"""Dead letters under fuzz: what is made of any record, and what is read from anybody's letter."""

from __future__ import annotations

from pipeline.cli.dlq.letters import letter_whole
from pipeline.errors import Reason, RecordError
from pipeline.messages.dead_letters import PREFIX as TOLD
from pipeline.messages.dead_letters import (
    Letter,
    dead_letter,
    read_letter,
    redriven,
    redriven_place,
)
from pipeline.messages.policy import MAX_KEY_BYTES, LimitPolicy
from pipeline.messages.records import Record
from tests.fuzz.frames import Frame, blob, record_frame

LIMITS = LimitPolicy(max_record_bytes=4096)
LARGEST_LETTER = LIMITS.max_record_bytes + 64 * 1024
TOPIC = "in.dlq"
NAMES = (
    "topic", "partition", "offset", "timestamp", "stage", "value.bytes", "key.bytes",
    "headers.bytes", "exception.class.name", "exception.message", "something.new",
)  # fmt: skip
MAX_TOLD = 5


def check_dead_letter(record: Record, error: RecordError) -> None:
    """It keeps what fits, says why, and fits."""
    letter = dead_letter(record, topic="in", to=TOPIC, error=error, stage="decode")
    told = {name: (value or b"").decode() for name, value in letter.headers if TOLD in name}
    assert Reason(told[f"{TOLD}exception.class.name"]) is error.reason
    n_bytes = sum(len(name.encode()) + len(value or b"") for name, value in letter.headers)
    n_bytes += len(letter.key or b"") + len(letter.value or b"")
    if error.reason is not Reason.TOO_LARGE:
        assert letter.value == record.value
    if record.key is None or len(record.key) <= MAX_KEY_BYTES:
        assert letter.key == record.key
    assert n_bytes <= LARGEST_LETTER + len(record.value or b"")
    if len(record.value or b"") <= LIMITS.max_record_bytes or letter.value is None:
        assert n_bytes <= LARGEST_LETTER


def run_dead_letter(data: bytes) -> None:
    """Of any record, for any reason."""
    frame = Frame(data)
    error = _error(frame)
    check_dead_letter(frame.record(), error)


def run_letter(data: bytes) -> None:
    """A letter of anybody's is read, shown and sent back; one of ours says what we said."""
    frame = Frame(data)
    error = _error(frame)
    n_told = frame.byte() % (MAX_TOLD + 1)
    told = [(TOLD + NAMES[frame.byte() % len(NAMES)], frame.blob()) for _ in range(n_told)]
    record = frame.record(41)
    check_letter(record._replace(headers=(*record.headers, *told)))

    out = dead_letter(record, topic="in", to=TOPIC, error=error, stage="decode")
    held = Record(0, 7, out.key, out.value, 8, out.headers)
    letter = check_letter(held)
    assert (letter.reason, letter.stage, letter.source_topic) == (error.reason, "decode", "in")
    assert (letter.source_partition, letter.source_offset) == (record.partition, record.offset)
    for part, before, after in (("key", record.key, out.key), ("value", record.value, out.value)):
        n_bytes = None if before == after or before is None else len(before)
        assert letter.left_out.get(part) == n_bytes
    assert letter.headers == (() if "headers" in letter.left_out else record.headers)


def check_letter(record: Record) -> Letter:
    """Nothing in it is obeyed by a terminal, numbers are bounded, and it goes back whole."""
    letter = read_letter(record)
    _check_text(letter_whole(letter, record))
    for number in (letter.source_partition, letter.source_offset, letter.timestamp_ms):
        assert number is None or abs(number) < 10**20
    assert not any(name.startswith(TOLD) for name, _ in letter.headers)
    redriven_place(record)
    if letter.source_topic is not None and letter.source_partition is not None:
        back = redriven(record, letter, dead_letters=TOPIC)
        again = Record(0, 0, back.key, back.value, None, back.headers)
        assert (again.key, again.value) == (record.key, record.value)
        assert redriven_place(again) == f"{TOPIC}/{letter.place.replace(':', '/')}"
        assert read_letter(again).reason is None, "what was said of it stays behind"
    return letter


def letter_seed(record: Record) -> bytes:
    """A record, and lies about it."""
    lies = {1: b"-1", 2: b"9" * 30, 5: b"12", 8: b"\xff\x1b[2J"}
    told = b"".join(bytes([number]) + blob(text) for number, text in lies.items())
    return b"\x03" + blob(b"3 dimensions") + bytes([len(lies)]) + told + record_frame(record)


def _error(frame: Frame) -> RecordError:
    return RecordError(list(Reason)[frame.byte() % len(Reason)], frame.text())


def _check_text(shown: object) -> None:
    match shown:
        case str():
            assert shown.isprintable(), shown
        case dict():
            _check_text([*shown, *shown.values()])
        case list():
            for one in shown:
                _check_text(one)
