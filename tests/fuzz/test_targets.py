"""The targets of `make fuzz`, for a second each, and every input that ever brought one down."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.fuzz.__main__ import main
from tests.fuzz.frames import Frame
from tests.fuzz.targets import TARGETS, read_snapshot, run, sealed

FOUND = [
    pytest.param(path.parent.name, path, id=f"{path.parent.name} {path.name}")
    for path in sorted((Path(__file__).parent / "found").glob("*/*"))
]


@st.composite
def mutations(draw, seeds):
    """A seed, cut, pasted and spoilt: what hypothesis makes of nothing seldom is a frame."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        end = draw(st.integers(at, min(len(data), at + 8)))
        data[at:end] = draw(st.binary(max_size=8) | st.sampled_from(WORDS))
    return bytes(data)


WORDS = [
    b"1e400", b"9" * 400, b"null", b"[]", b"{}", b'"\\ud800"', b"-1", b"NaN", b"\xff\xff\xff\x7f",
    b"true", b"&a ", b"*a", b"!!int ", b"c1", b"[[[[[[[[", b"\x00\x00\x00\x00",
]  # fmt: skip


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_takes_its_seeds_and_what_becomes_of_them(name):
    seeds = sorted(set(TARGETS[name].seeds()))
    for seed in seeds:
        run(name, seed)

    @settings(
        max_examples=60, deadline=None, database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )  # fmt: skip
    @given(mutations(seeds) | st.binary(max_size=200))
    @example(b"")
    def survives(data):
        run(name, data)

    survives()


@pytest.mark.parametrize(("name", "path"), FOUND)
def test_what_was_found_once_is_not_found_again(name, path):
    run(name, path.read_bytes())


def test_the_seeds_of_snapshots_are_snapshots(tmp_path):
    for number, seed in enumerate(TARGETS["snapshot"].seeds()):
        frame, path = Frame(seed), tmp_path / str(number)
        path.write_bytes(sealed(frame) if frame.byte() else frame.rest())

        assert read_snapshot(path) == 4


def test_control_a_target_tells_what_it_cannot_bear(monkeypatch):
    def bad(_records, _policy, _limits):
        raise KeyError("not documented")

    monkeypatch.setattr("tests.fuzz.targets.decode", bad)
    with pytest.raises(KeyError):
        run("input", b"\x00\x01")


def test_without_atheris_the_verb_says_so(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    assert main([]) == 0
    assert "not installed" in capsys.readouterr().out
