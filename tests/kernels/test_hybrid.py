"""Two twins as one: which of them is asked, and that nobody can tell from the results."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.kernels.contract import Sums
from pipeline.kernels.cpu.twin import CpuKernels
from pipeline.kernels.hybrid import (
    CALLS,
    SHAPES,
    Cost,
    Costs,
    HybridKernels,
    cache_folder,
    carried_and_work,
    measured,
)
from tests.kernels.cases import CASES, SIMULATED, normal, plain
from tests.kernels.conftest import CUDA, cuda_kernels

KEY = {"small": "a processor", "large": "a card"}
ALWAYS = {
    side: dict.fromkeys(SHAPES, Costs(Cost(small, 0, 0), Cost(1, 0, 0)))
    for side, small in (("small", 0), ("large", 2))
}


class Counting:
    """A twin that notes what it is asked."""

    device = "a counter"

    def __init__(self, kernels, name="cpu"):
        self.kernels, self.name, self.asked = kernels, name, []

    def __getattr__(self, name):
        def ask(*args, **named):
            self.asked.append(name)
            return getattr(self.kernels, name)(*args, **named)

        return ask


class Full(Counting):
    """A card without any room."""

    def __getattr__(self, name):
        def refuse(*args, **named):
            self.asked.append(name)
            raise ConfigError("no room")

        return refuse


@pytest.fixture(scope="module")
def processor():
    return CpuKernels(threads=1)


@pytest.fixture(scope="module", params=["cpu", CUDA])
def card(request, processor):
    """A device, numba's simulator of one, or what stands in for it elsewhere."""
    return processor if request.param == "cpu" else cuda_kernels()


def pair(processor, card, crossover):
    return HybridKernels(Counting(processor), Counting(card, "cuda"), crossover)


def of_size(n_rows):
    """A crossover between calls of up to so many rows of the plain case and larger ones."""
    costs = Costs(Cost(0.0, 1.0, 0.0), Cost((n_rows + 0.5) * 33, 0.0, 0.0))
    return dict.fromkeys(SHAPES, costs)


def test_large_calls_go_to_the_card_and_small_ones_do_not(processor, card):
    points, centroids = plain(n=12)
    twin = pair(processor, card, of_size(8))
    model = twin.load(centroids)
    labels, sums = np.zeros(12, np.int32), Sums.zeros(7, 33, max_component=8.0)

    for n in (8, 9, 0, 12, 1):
        twin.assign(model, points[:n])
        twin.accumulate(sums, points[:n], labels[:n], points[:n], labels[:n])

    assert twin.small.asked == ["load", *(["assign", "accumulate"] * 3)]
    assert twin.large.asked == ["load", *(["assign", "accumulate"] * 2)]


@pytest.mark.parametrize("case", ["plain", "near ties", "duplicated centroids", "one cluster"])
def test_the_choice_is_not_seen_in_the_results(processor, card, case):
    points, centroids = CASES[case]()
    alone = processor.assign(processor.load(centroids), points, second=True, margin=True)

    for crossover in ALWAYS.values():
        twin = pair(processor, card, crossover)
        found = twin.assign(twin.load(centroids), points, second=True, margin=True)

        for name in ("labels", "distances_squared", "second_labels", "second_distances_squared"):
            assert getattr(found, name).tobytes() == getattr(alone, name).tobytes(), name
        assert (found.margins >= 0.0).all()


def test_both_may_take_turns_at_one_sum(processor, card):
    points = normal(12, 5)
    labels, nowhere = (np.arange(12) % 3).astype(np.int32), np.full(12, -1, np.int32)
    expected = Sums.zeros(3, 5, max_component=8.0)
    processor.accumulate(expected, points, nowhere, points, labels)
    sums = Sums.zeros(3, 5, max_component=8.0)

    for part, side in zip(np.split(np.arange(12), 4), itertools.cycle(ALWAYS)):
        rows = np.ascontiguousarray(points[part])
        twin = pair(processor, card, ALWAYS[side])
        twin.accumulate(sums, rows, nowhere[part], rows, labels[part])

    for name in sums.arrays:
        assert getattr(sums, name).tobytes() == getattr(expected, name).tobytes(), name


def test_what_the_card_has_no_room_for_the_processor_does(processor):
    points, centroids = plain()
    labels, sums = np.zeros(len(points), np.int32), Sums.zeros(7, 33, max_component=8.0)
    twin = HybridKernels(processor, Full(processor, "cuda"), ALWAYS["large"])

    found = twin.assign(twin.load(centroids), points)
    twin.accumulate(sums, points, labels - 1, points, labels)

    assert twin.large.asked == ["load", "accumulate"]
    expected = processor.assign(processor.load(centroids), points)
    assert found.labels.tolist() == expected.labels.tolist()
    assert sums.counts[0] == len(points)


# What calls take


class Machine:
    """A twin whose calls take what a law says, and the clock that they are measured by."""

    name = "machine"

    def __init__(self, costs):
        self.costs, self.now_s, self.n_calls = costs, 0.0, 0

    def clock(self):
        return self.now_s

    def _spend(self, operation, n_rows, other):
        self.n_calls += 1
        self.now_s += self.costs[operation].seconds(*carried_and_work(operation, n_rows, other))
        if self.n_calls % (CALLS + 1) == 2:
            self.now_s += 10.0  # something else had the processor

    def load(self, centroids):
        return centroids

    def assign(self, model, points):
        self._spend("assign", len(points), model.shape)

    def accumulate(self, sums, old, old_labels, new, new_labels):
        self._spend("accumulate", len(new), sums.sums.shape)

    def separations(self, points, starts, rows):
        self._spend("separations", len(rows), points.shape)


laws = st.fixed_dictionaries(
    {
        operation: st.builds(Cost, st.floats(1e-6, 1e-2), st.floats(0, 1e-8), st.floats(0, 1e-10))
        for operation in SHAPES
    }
)


@settings(max_examples=20, deadline=None)
@given(law=laws)
def test_measuring_finds_what_calls_take(law):
    machine = Machine(law)

    found = measured(machine, machine, KEY, folder=None, clock=machine.clock)

    for operation, cost in law.items():
        for side in found[operation]:
            for sizes in SHAPES[operation]:
                terms = carried_and_work(operation, sizes[0], (sizes[1], 256))
                assert side.seconds(*terms) == pytest.approx(cost.seconds(*terms), rel=1e-6)


def test_a_card_is_worth_its_start_from_some_size_on():
    slow, fast = Cost(0.0, 0.0, 1e-9), Cost(100e-6, 1e-10, 1e-12)
    processor, card = (Machine(dict.fromkeys(SHAPES, cost)) for cost in (slow, fast))

    def clock():
        return processor.now_s + card.now_s

    found = measured(processor, card, KEY, folder=None, clock=clock)["assign"]

    assert not found.prefers_large(*carried_and_work("assign", 1, (500, 100)))
    assert found.prefers_large(*carried_and_work("assign", 100, (500, 1024)))
    assert not found.prefers_large(*carried_and_work("assign", 0, (500, 1024)))


def test_a_machine_is_measured_once(tmp_path):
    machine = Machine(dict.fromkeys(SHAPES, Cost(1e-3, 1e-9, 1e-12)))
    folder = tmp_path / "none" / "yet"
    first = measured(machine, machine, KEY, folder=folder, clock=machine.clock)
    n_calls = machine.n_calls

    second = measured(machine, machine, KEY, folder=folder, clock=machine.clock)
    other = measured(machine, machine, KEY | {"large": "b"}, folder=folder, clock=machine.clock)

    assert second == first
    assert machine.n_calls == 2 * n_calls
    assert other.keys() == first.keys()
    assert [path.suffix for path in folder.iterdir()] == [".json", ".json"]


def _without_separations(kept):
    del kept["costs"]["separations"]
    return json.dumps(kept)


BROKEN = {
    "empty": lambda kept: "",
    "another thing": lambda kept: "[1, 2]",
    "no object": lambda kept: "3",
    "of another machine": lambda kept: json.dumps(kept | {"key": {}}),
    "of another form": lambda kept: json.dumps(kept | {"form": 0}),
    "an operation too few": _without_separations,
    "a negative time": lambda kept: json.dumps(kept).replace("0.001", "-0.001"),
    "no number": lambda kept: json.dumps(kept).replace("0.001", "NaN"),
    "no UTF-8": lambda kept: "\udcff",
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_file_that_is_no_good_is_measured_again(tmp_path, how):
    machine = Machine(dict.fromkeys(SHAPES, Cost(0.001, 0.0, 0.0)))
    first = measured(machine, machine, KEY, folder=tmp_path, clock=machine.clock)
    (path,) = tmp_path.iterdir()
    text = json.dumps(json.loads(path.read_text()))
    kept = json.loads(text)
    for both in kept["costs"].values():
        for side in both:
            both[side] = [0.001, 0.0, 0.0]
    path.write_text(BROKEN[how](kept), errors="surrogateescape")
    n_calls = machine.n_calls

    again = measured(machine, machine, KEY, folder=tmp_path, clock=machine.clock)

    assert machine.n_calls > n_calls
    assert again.keys() == first.keys()
    assert json.loads(path.read_text())["key"] == KEY


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path):
    machine = Machine(dict.fromkeys(SHAPES, Cost(0.001, 0.0, 0.0)))
    (tmp_path / "file").touch()

    found = measured(
        machine, machine, KEY, folder=tmp_path / "file" / "folder", clock=machine.clock
    )

    assert found.keys() == SHAPES.keys()


def test_figures_are_kept_where_the_user_keeps_what_can_be_made_again(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))

    assert cache_folder({"XDG_CACHE_HOME": str(tmp_path / "c")}) == tmp_path / "c" / "eddy"
    assert cache_folder({"XDG_CACHE_HOME": "not/absolute"}) == tmp_path / ".cache" / "eddy"
    assert cache_folder({}) == tmp_path / ".cache" / "eddy"


def test_real_twins_can_be_measured(processor):
    if SIMULATED:
        pytest.skip("the simulator would take minutes")

    found = measured(processor, processor, KEY, folder=None)

    for costs in found.values():
        assert all(number >= 0.0 for cost in costs for number in cost)
