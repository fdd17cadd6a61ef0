"""What goes to a terminal or a pipe."""

from __future__ import annotations

import json

from pipeline.cli.output import print_json


def test_json_holds_nothing_that_a_terminal_obeys(capsys):
    controls = "".join(map(chr, [*range(0x20), *range(0x7F, 0xA0)]))
    value = {"text": f"a{controls}ü\\\u009b31m", "\x9bkey": [controls]}

    print_json(value)

    line = capsys.readouterr().out
    assert line.endswith("\n") and line.count("\n") == 1
    assert not any(c < " " or "\x7f" <= c <= "\x9f" for c in line[:-1])
    assert json.loads(line) == value
    assert "ü" in line, "what people read stays as it is"
