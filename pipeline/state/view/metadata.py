"""What producers say of their items beside the vector, and which items it is true of.

A column of codes for each key: an item takes four bytes for every key that anybody uses, and a
value some 120 and its text, once. So a question by value is a pass over one column. Keys beyond
`MAX_KEYS`, and values for which there is no room within `MAX_BYTES`, are left out and counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

MAX_KEYS: Final = 32
MAX_BYTES: Final = 2**30
"""Of columns and values together."""
VALUE_BYTES: Final = 120
"""Of a value, beside its text: two places in a table, one in a list, a count."""
MIN_ROWS: Final = 64
NOTHING: Final = 0
"""The code of no value."""

Value = str | bool | int | float
Conditions = Sequence[tuple[str, str]]
"""Keys, and the texts of their values; all have to hold."""


def is_value(value: Any, text: str) -> bool:
    """Whether a value is what somebody wrote: text, or a number or boolean as JSON has them."""
    return any(_mark(value) == mark for mark in _marks(text))


class _Column:
    """The values of one key."""

    def __init__(self) -> None:
        self.codes: NDArray[np.int32] = np.zeros(MIN_ROWS, np.int32)
        self.values: list[Value | None] = [None]
        self.codes_of: dict[tuple[str, Value], int] = {}
        self.counts = [0]
        self.free: list[int] = []

    def hold(self, value: Value) -> int:
        """The code of a value, which one row more has."""
        mark = _mark(value)
        code = self.codes_of.get(mark)
        if code is None:
            if self.free:
                code = self.free.pop()
                self.values[code] = value
            else:
                code = len(self.values)
                self.values.append(value)
                self.counts.append(0)
            self.codes_of[mark] = code
        self.counts[code] += 1
        return code

    def release(self, code: int) -> Value | None:
        """One row less has it; the value, if it was the last."""
        self.counts[code] -= 1
        if self.counts[code]:
            return None
        value = self.values[code]
        assert value is not None
        self.values[code] = None
        del self.codes_of[_mark(value)]
        self.free.append(code)
        return value


class MetadataTable:
    """The metadata of rows."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._columns: dict[str, _Column] = {}
        self._max_bytes = max_bytes
        self._value_bytes = 0
        self.n_left_out = 0
        """Entries for which there was no room."""

    @property
    def n_bytes(self) -> int:
        """What all of it takes."""
        return self._value_bytes + sum(column.codes.nbytes for column in self._columns.values())

    def put(self, row: int, metadata: Mapping[str, Any]) -> None:
        """What is said of a row, and nothing else any more."""
        self._clear(row)
        for key, value in metadata.items():
            column = self._columns.get(key)
            if column is None:
                if len(self._columns) == MAX_KEYS:
                    self.n_left_out += 1
                    continue
                column = self._columns[key] = _Column()
            if not self._has_room(column, row, value):
                self.n_left_out += 1
                continue
            if row >= len(column.codes):
                grown = np.zeros(max(row + 1, len(column.codes) * 5 // 4), np.int32)
                grown[: len(column.codes)] = column.codes
                column.codes = grown
            column.codes[row] = column.hold(value)

    def clear(self, rows: NDArray[np.intp]) -> None:
        """Nothing is said of these rows any more."""
        if self._columns:
            for row in rows.tolist():
                self._clear(row)

    def get(self, row: int) -> dict[str, Value]:
        """What is said of a row, by key."""
        found = {}
        for key, column in self._columns.items():
            value = column.values[column.codes[row]] if row < len(column.codes) else None
            if value is not None:
                found[key] = value
        return found

    def fits(self, conditions: Conditions, n_rows: int) -> NDArray[np.bool_]:
        """(n_rows,) of which rows all conditions are true."""
        found = np.ones(n_rows, np.bool_)
        for key, text in conditions:
            column = self._columns.get(key)
            codes = [] if column is None else [column.codes_of.get(mark) for mark in _marks(text)]
            holds = np.zeros(n_rows, np.bool_)
            for code in codes:
                if column is not None and code is not None:
                    known = column.codes[:n_rows]
                    holds[: len(known)] |= known == code
            found &= holds
        return found

    def parts(self, rows: NDArray[np.intp]) -> dict[str, Any]:
        """All of it, copied, as of a table in which these rows, ascending, are 0, 1, ..."""
        codes = np.zeros((len(self._columns), len(rows)), np.int32)
        for found, column in zip(codes, self._columns.values(), strict=True):
            known = rows[: np.searchsorted(rows, len(column.codes))]
            found[: len(known)] = column.codes[known]
        values = [list(column.values) for column in self._columns.values()]
        names = {f"values.{i}": found for i, found in enumerate(values)}
        return {"keys": list(self._columns), "codes": codes, "left_out": self.n_left_out, **names}

    def resume(self, parts: Mapping[str, Any]) -> None:
        """Become what `parts` told; only of a table that nothing was put into."""
        for i, key in enumerate(parts["keys"]):
            column = self._columns[key] = _Column()
            codes, values = parts["codes"][i], parts[f"values.{i}"]
            column.codes = np.concatenate((codes, np.zeros(MIN_ROWS, np.int32)))
            column.values = values
            column.counts = np.bincount(codes, minlength=len(values)).tolist()
            column.counts[NOTHING] = 0
            known = [code for code, value in enumerate(values) if value is not None]
            column.codes_of = {_mark(values[code]): code for code in known}
            column.free = sorted(set(range(1, len(values))).difference(known))
            self._value_bytes += sum(_size(values[code]) for code in known)
        self.n_left_out = parts["left_out"]

    def _has_room(self, column: _Column, row: int, value: Value) -> bool:
        n_bytes = 0 if row < len(column.codes) else 4 * (row + 1 - len(column.codes))
        if _mark(value) not in column.codes_of:
            size = _size(value)
            self._value_bytes += size  # given back below, if there is no room
            if self.n_bytes + n_bytes > self._max_bytes:
                self._value_bytes -= size
                return False
            return True
        return self.n_bytes + n_bytes <= self._max_bytes

    def _clear(self, row: int) -> None:
        for column in self._columns.values():
            if row < len(column.codes) and column.codes[row]:
                gone = column.release(int(column.codes[row]))
                column.codes[row] = NOTHING
                if gone is not None:
                    self._value_bytes -= _size(gone)


def _size(value: Value) -> int:
    return VALUE_BYTES + (len(value.encode()) if isinstance(value, str) else 0)


def _mark(value: Any) -> tuple[str, Any]:
    """True is not 1, and 1 not the text of it; but 1 is 1.0."""
    if isinstance(value, str):
        return "text", value
    return ("boolean" if isinstance(value, bool) else "number"), value


def _marks(text: str) -> list[tuple[str, Any]]:
    """The values that somebody may mean who writes this."""
    found: list[tuple[str, Any]] = [("text", text)]
    if text in ("true", "false"):
        found.append(("boolean", text == "true"))
    for number in (int, float):
        try:
            value = number(text)
        except ValueError:
            continue
        if text.strip("+-.0123456789eE") == "" and value not in (float("inf"), float("-inf")):
            found.append(("number", value))
            break
    return found
