"""A frame of `eddy top`: the server's numbers, within the terminal, whatever strangers wrote."""

from __future__ import annotations

import datetime
import io
from dataclasses import replace

import pytest
from rich.cells import cell_len
from rich.console import Console

from pipeline.cli.top_frame import Board, bar, frame, spark
from pipeline.client.results import Cluster, LifecycleEvent, Signal, Stats, Version

NOW = datetime.datetime(2026, 3, 1, 12, 0, tzinfo=datetime.UTC)
MODEL = Version(3, 12)


def cluster(n, **other):
    told = {
        "cluster": f"c{n}", "label": None, "size": 100 - n, "share": (100 - n) / 1000,
        "spread": 1.0, "shift": 0.1, "growth": n - 3, "exemplar": f"item-{n}", "born_at": NOW,
        "parents": (), "x": None, "y": None, "drift": n / 4, "state": "live",
    }  # fmt: skip
    return Cluster(**told | other)


def signal(n, state="raised", statistic=3.0):
    return Signal(
        f"s{n}", state, "cluster", f"c{n}", (), "distance", statistic, 2.0, 1.2, 1000, 100, MODEL,
        NOW,
    )  # fmt: skip


def event(kind, **other):
    told = dict.fromkeys(
        ("size", "similarity", "label", "command", "reason", "inertia_before", "inertia_after",
         "moved")
    )  # fmt: skip
    told |= {"id": kind, "type": kind, "cluster": "c1", "parents": (), "children": ()}
    return LifecycleEvent(**told | {"model": MODEL, "occurred_at": NOW} | other)


def board(**other):
    stats = Stats(
        items=1_234_567, clusters=40, clusters_live=39, changes_per_s=512.3,
        events_per_s=498.0, model=MODEL, vectors=True, lag_s=0.2,
        lag_records={"changes": 5, "assignments": 12}, delay_p50_s=0.012, delay_p99_s=0.045,
        end_to_end_p50_s=0.02, end_to_end_p99_s=0.06, descriptors_open=40, descriptors_limit=1024,
        partitions=(), as_of=NOW,
    )  # fmt: skip
    told = {
        "url": "http://127.0.0.1:8080", "stats": stats, "clusters": [cluster(n) for n in range(9)],
        "sort": "size", "lifecycle": [event("born"), event("installed", reason="command")],
        "signals": [signal(1), signal(2, "cleared")], "rates": [1.0, 2.0, 8.0],
        "sparklines": {"c1": (0, 1, 4)},
    }  # fmt: skip
    return Board(**told | other)


def shown(board, width=80, height=None):
    console = Console(file=io.StringIO(), width=width, height=height or 60, highlight=False)
    console.print(frame(board, width, height, NOW))
    return console.file.getvalue()


def test_it_shows_the_numbers_that_the_server_said():
    text = shown(board(), 120).replace("\N{NO-BREAK SPACE}", " ")
    for said in (
        "model 3.12", "items 1 234 567", "clusters 39", "changes 512/s", "lag 17",
        "delay 12 ms, p99 45 ms", "and 31 more", "item-4", "+5", "1.25", "12:00:00", "live",
    ):  # fmt: skip
        assert said in text, said
    assert text.count("raised") == 1
    assert "cleared" not in text
    assert "born" in text


@pytest.mark.parametrize("width", [80, 100, 120, 200])
@pytest.mark.parametrize("height", [None, 24, 50])
def test_a_frame_fits_into_the_terminal(width, height):
    many = board(
        clusters=[cluster(n, label="a label that does not end " * 9) for n in range(70)],
        signals=[signal(n) for n in range(9)],
        lifecycle=[event("split", children=tuple(f"c{n}" for n in range(99)))] * 9,
    )
    lines = shown(many, width, height).splitlines()
    assert max(cell_len(line) for line in lines) <= width
    if height is not None:
        assert len(lines) <= height
    assert "and 6 more" in "\n".join(lines)  # alarms


def test_what_strangers_wrote_is_not_obeyed():
    evil = "\x1b[2J\u202e[bold]x[/]"
    text = shown(
        board(
            clusters=[cluster(1, label=evil), cluster(2, exemplar=evil)],
            lifecycle=[event("labelled", label=evil), event("of\x1ba newer server")],
        )
    )
    assert "\x1b[2J" not in text
    assert "\u202e" not in text
    assert "[bold]x[/]" in text


def test_before_the_first_model_it_says_so():
    empty = replace(
        board().stats, items=0, clusters=0, clusters_live=0, changes_per_s=0.0, events_per_s=0.0,
        model=None, lag_records={}, delay_p50_s=None, delay_p99_s=None, as_of=None,
    )  # fmt: skip
    text = shown(board(stats=empty, clusters=[], lifecycle=[], signals=[], rates=[0.0]))
    assert "none yet" in text
    assert "no clusters yet" in text
    assert "nothing yet" in text


def test_a_server_that_does_not_answer_is_said_for_how_long():
    assert "no answer for 12 s" in shown(replace(board(), silent_s=12.3))
    assert "reconnecting" in shown(replace(board(), is_live=False))


def test_the_order_is_marked():
    assert "drift ↓" in shown(board(sort="drift"))
    assert "hour ↓" in shown(board(sort="growth"))


@pytest.mark.parametrize(
    ("share", "drawn"), [(0.0, ""), (0.001, "▏"), (0.5, "██"), (1.0, "████"), (7.0, "████")]
)
def test_a_bar_is_as_long_as_its_share(share, drawn):
    assert bar(share, 4) == drawn


def test_a_spark_shows_the_last_numbers_against_the_largest():
    assert spark([9, 0, 4, 8], 3) == "▁▅█"
    assert spark([0, 0], 5) == "▁▁"
    assert spark([], 5) == ""
