"""What people ask of the reclusterer; the record's key is the command's id."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pipeline.errors import Reason, RecordError
from pipeline.messages.codec import json_bytes, json_value
from pipeline.messages.policy import MAX_KEY_BYTES
from pipeline.messages.records import Record


class CommandType(StrEnum):
    """What there is to ask for."""

    RECLUSTER = "recluster"
    ROLLBACK = "rollback"
    SPLIT = "split"
    MERGE = "merge"
    LABEL = "label"


@dataclass(frozen=True, slots=True)
class Command:
    """One request; which of the later fields it has depends on its type."""

    id: str
    """The caller's, unique: an id that was answered is not carried out again."""
    type: str
    requested_by: str | None = None
    reason: str | None = None
    cold: bool = False
    """recluster: begin from nothing instead of the present centroids."""
    force: bool = False
    """recluster: publish even without a gain."""
    epoch: int | None = None
    """rollback: to which one."""
    cluster: str | None = None
    """split, label: which one."""
    clusters: tuple[str, ...] = ()
    """merge: which ones, at least two."""
    label: str | None = None
    """label: the text."""


_NEEDED = {
    CommandType.RECLUSTER: (),
    CommandType.ROLLBACK: ("epoch",),
    CommandType.SPLIT: ("cluster",),
    CommandType.MERGE: ("clusters",),
    CommandType.LABEL: ("cluster", "label"),
}
_ALLOWED = {kind: {"type", "requested_by", "reason", *needed} for kind, needed in _NEEDED.items()}
_ALLOWED[CommandType.RECLUSTER] |= {"cold", "force"}


def encode_command(command: Command) -> tuple[bytes, bytes]:
    """Key and value of a command."""
    fields: dict[str, Any] = {"type": str(command.type)}
    for name in ("requested_by", "reason"):
        if getattr(command, name) is not None:
            fields[name] = getattr(command, name)
    for name in ("cold", "force"):
        if getattr(command, name):
            fields[name] = True
    for name in _NEEDED[CommandType(command.type)]:
        fields[name] = getattr(command, name)
    return command.id.encode(), json_bytes(fields)


def decode_command(record: Record) -> Command:
    """The command in a record; RecordError for anything else."""
    command_id = _id(record.key)
    if record.value is None:
        raise _malformed("a command has a value")
    fields = json_value(record.value)
    if type(fields) is not dict:
        raise _malformed("a command is an object")
    kind = fields.get("type")
    if type(kind) is not str or kind not in _ALLOWED:
        raise _malformed(f"type must be one of {', '.join(_ALLOWED)}")
    kind = CommandType(kind)
    unknown = fields.keys() - _ALLOWED[kind]
    if unknown:
        raise _malformed(f"a {kind} has no field {min(unknown)[:80]!r}")
    missing = [name for name in _NEEDED[kind] if name not in fields]
    if missing:
        raise _malformed(f"a {kind} needs {', '.join(missing)}")
    for name, value in fields.items():
        _check(name, value)
    fields["clusters"] = tuple(fields.get("clusters", ()))
    return Command(id=command_id, **fields)


def _id(key: bytes | None) -> str:
    if not key or len(key) > MAX_KEY_BYTES:
        raise _malformed(f"the key, a command's id, must have 1 to {MAX_KEY_BYTES} bytes")
    try:
        return key.decode()
    except UnicodeDecodeError as error:
        raise _malformed(f"the key is not UTF-8 at byte {error.start}") from error


def _check(name: str, value: Any) -> None:
    match name:
        case "cold" | "force":
            if type(value) is not bool:
                raise _malformed(f"{name} must be true or false")
        case "epoch":
            if type(value) is not int or value < 1:
                raise _malformed("epoch must be a whole number from 1 on")
        case "clusters":
            if type(value) is not list or not all(type(c) is str and c for c in value):
                raise _malformed("clusters must be a list of cluster ids")
            if len(value) < 2 or len(set(value)) < len(value):
                raise _malformed("clusters must be at least two different ones")
        case "cluster":
            if type(value) is not str or not value:
                raise _malformed("cluster must be a cluster id")
        case _:
            if type(value) is not str:
                raise _malformed(f"{name} must be text")


def _malformed(message: str) -> RecordError:
    return RecordError(Reason.DECODE, message)
