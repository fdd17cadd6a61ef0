"""`eddy doctor`: each line ok or what to do, and one bad line is exit code 1."""

from __future__ import annotations

import time

import pytest

from pipeline.cli.doctor import _bounds, _satisfies
from pipeline.kernels.devices import processor_name
from pipeline.messages.vectors import encode_vector
from tests.cli.console import TOPICS, Console


def states(eddy: Console) -> dict[str, str]:
    return {line["check"]: line["state"] for line in eddy.lines}


def test_a_healthy_place_is_ok_in_every_line(eddy_with_topics: Console):
    assert eddy_with_topics("doctor", "--json") == 0

    names = ["versions", "config", "device", "state", "memory", "broker", "topics", "clock"]
    assert states(eddy_with_topics) == dict.fromkeys(names, "ok")


def test_people_see_a_mark_a_name_and_a_sentence(eddy_with_topics: Console):
    assert eddy_with_topics("doctor") == 0

    assert all(line.startswith("ok    ") for line in eddy_with_topics.out.splitlines())


def test_it_says_which_kernels_compute_on_what_and_why(eddy_with_topics: Console):
    assert eddy_with_topics("doctor", "--json", "--set", "device.kind=cpu") == 0

    (line,) = [line for line in eddy_with_topics.lines if line["check"] == "device"]
    assert f"kernels cpu (device.kind cpu) on {processor_name()}, " in line["text"]
    assert line["text"].endswith("no CUDA device looked for")


def test_without_a_broker_the_rest_is_told_all_the_same(eddy: Console):
    eddy.broker.is_away = True

    assert eddy("doctor", "--json") == 1

    assert states(eddy)["broker"] == "!"
    assert states(eddy)["device"] == "ok"
    assert "topics" not in states(eddy)


def test_without_topics_it_says_how_to_make_them(eddy: Console):
    assert eddy("doctor") == 1

    assert "!     topics     there are none yet: run eddy topics create" in eddy.out


def test_a_wrong_configuration_is_a_line_and_ends_it(eddy: Console):
    assert eddy("doctor", "--json", "--set", "clustering.clusters=0") == 1

    assert states(eddy) == {"versions": "ok", "config": "!"}
    assert "clustering.clusters is 0" in eddy.lines[-1]["text"]


def test_a_record_from_the_future_is_a_wrong_clock(eddy_with_topics: Console):
    eddy = eddy_with_topics
    value = encode_vector([1.0, 2.0, 3.0])  # type: ignore[arg-type]
    now_ms = int(time.time() * 1000)
    eddy.broker.append(TOPICS.input, 0, b"a", value, timestamp_ms=now_ms)
    assert eddy("doctor", "--json") == 0

    eddy.broker.append(TOPICS.input, 5, b"b", value, timestamp_ms=now_ms + 3_600_000)

    assert eddy("doctor", "--json") == 1
    assert states(eddy)["clock"] == "!"
    assert "s in the future" in eddy.lines[-1]["text"]


def test_a_state_folder_is_one_that_is_there_or_can_be_made(eddy_with_topics: Console, tmp_path):
    folder = tmp_path / "above" / "state"  # an assigner makes both
    assert eddy_with_topics("doctor", "--json", "--set", f"state.directory={folder}") == 0

    folder.mkdir(parents=True)
    assert eddy_with_topics("doctor", "--json", "--set", f"state.directory={folder}") == 0

    (folder / "file").touch()
    wrong = folder / "file" / "state"
    assert eddy_with_topics("doctor", "--json", "--set", f"state.directory={wrong}") == 1
    assert states(eddy_with_topics)["state"] == "!"


@pytest.mark.parametrize(
    ("version", "bounds", "fits"),
    [
        ("2.15.1", ">=2.15.1,<2.16", True),
        ("2.15.10", ">=2.15.1,<2.16", True),
        ("2.16.0", ">=2.15.1,<2.16", False),
        ("2.15.0", ">=2.15.1,<2.16", False),
        ("2.4.6", ">=2.1", True),
        ("2.1rc1", "", True),
    ],
)
def test_a_version_is_held_against_the_bounds_of_the_package(version, bounds, fits):
    assert _satisfies(version, bounds) is fits


def test_bounds_are_those_of_the_package_that_is_named():
    assert _bounds("confluent-kafka<2.16,>=2.15.1", "confluent-kafka") == "<2.16,>=2.15.1"
    assert _bounds("numpy>=2.1 ; python_version > '3'", "numpy") == ">=2.1"
    assert _bounds("numpy-stubs>=1", "numpy") == ""
