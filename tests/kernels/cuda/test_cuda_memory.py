"""What the CUDA twin takes, keeps and sends: on the simulator, whose arrays are NumPy's."""

from __future__ import annotations

import gc
from importlib import import_module

import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.kernels.contract import Sums
from tests.kernels.cases import SIMULATED, normal, plain

pytestmark = pytest.mark.skipif(not SIMULATED, reason="runs within the suite on the simulator")


def kernels(max_memory_bytes=None):
    return import_module("pipeline.kernels.cuda.twin").CudaKernels(max_memory_bytes)


def memory(max_bytes):
    return import_module("pipeline.kernels.cuda.memory").CudaMemory(max_bytes)


def columns(width=4):
    column = import_module("pipeline.kernels.cuda.memory").Column
    return column("points", np.float32, width, is_staged=True), column("labels", np.int32)


@pytest.fixture
def allocated(monkeypatch):
    """Shapes of the arrays that were allocated on the device, as they come."""
    cuda = import_module("pipeline.kernels.cuda.memory").cuda
    shapes, original = [], cuda.device_array

    def device_array(shape, *args, **kwargs):
        shapes.append(shape)
        return original(shape, *args, **kwargs)

    monkeypatch.setattr(cuda, "device_array", device_array)
    return shapes


def test_a_call_allocates_nothing_once_there_was_one_of_its_size(allocated):
    points, centroids = plain(n=8)
    twin = kernels()
    model = twin.load(centroids)
    sums, labels = Sums.zeros(7, 33, max_component=8.0), np.zeros(8, np.int32)
    for _ in range(2):
        allocated.clear()
        for n in (8, 5, 1):
            twin.assign(model, points[:n], margin=True)
            twin.accumulate(sums, points[:n], labels[:n], points[:n], labels[:n])

    assert allocated == []


def test_buffers_grow_by_powers_of_two(allocated):
    lent = memory(2**20)
    with lent.lock:
        for n_rows in (3, 4, 5, 8, 9):
            lent.lay_out(columns(), n_rows)

    assert allocated == [16, 4, 32, 8, 64, 16]


def test_models_and_calls_stay_within_the_bound():
    points, centroids = plain()
    twin = kernels(12_000)
    models = []
    for n in (13, 2, 7):
        models.append(twin.load(centroids))
        twin.assign(models[-1], points[:n], second=True)
        taken = 12_000 - twin.memory.room
        assert taken >= len(models) * 2 * centroids.nbytes
        assert taken + twin.memory.n_kept <= 12_000


def test_a_model_that_nobody_has_makes_room():
    _, centroids = plain()
    twin = kernels(8_000)
    for _ in range(5):
        model = twin.load(centroids)
        with pytest.raises(ConfigError, match="a model of 20 clusters in 33 dimensions"):
            twin.load(normal(20, 33))
        del model
        gc.collect()  # an exception keeps the frames that it came through

    twin.load(normal(10, 33))


def test_a_model_that_does_not_fit_says_what_to_do():
    with pytest.raises(ConfigError, match=r"raise device\.max_memory_bytes, or set device\.kind"):
        kernels(2**20).load(normal(300, 1000))


def test_a_call_that_does_not_fit_says_what_to_do_and_adds_nothing():
    twin = kernels(2_000)
    points, labels = normal(2, 33), np.zeros(2, np.int32)
    sums = Sums.zeros(7, 33, max_component=8.0, is_weighted=True)
    weights = np.ones(2)

    with pytest.raises(ConfigError, match="one row and the arrays of a call"):
        twin.accumulate(
            sums, points, labels - 1, points, labels, old_weights=weights, new_weights=weights
        )

    assert not sums.weights.any()


def test_a_device_that_others_use_up_says_what_to_do(monkeypatch):
    lent = import_module("pipeline.kernels.cuda.memory")
    twin = kernels()
    model = twin.load(plain()[1])

    def device_array(shape, dtype):
        raise lent.CudaAPIError("CUDA_ERROR_OUT_OF_MEMORY")

    monkeypatch.setattr(lent.cuda, "device_array", device_array)

    with pytest.raises(ConfigError, match=r"others use it; lower device\.max_memory_bytes"):
        twin.assign(model, plain()[0])


def test_parts_use_two_slots_in_turns():
    lent = memory(40 * 2 * 5)  # five rows in each of two slots
    with lent.lock:
        layout = lent.lay_out(columns(width=9), 12)
        turns = [(slot, part.stop - part.start) for slot, part in layout.parts(12)]

    assert [n for _, n in turns] == [5, 5, 2]
    assert turns[0][0] is turns[2][0] is not turns[1][0]


def test_a_slot_gives_back_what_was_computed_before_it_takes_the_next_part():
    lent, found = memory(40 * 2 * 3), np.empty((10, 9), np.float32)
    points = normal(10, 9)
    with lent.lock:
        layout = lent.lay_out(columns(width=9), 10)
        for slot, part in layout.parts(10):
            slot.send("points", points[part])
            slot.array("points")[:] = slot.array("points")._ary * 2
            slot.fetch("points", found[part])

    assert found.tobytes() == (points * 2).tobytes()


def test_a_mapped_matrix_goes_through_in_parts(tmp_path):
    points, centroids = plain()
    path = tmp_path / "points"
    points.tofile(path)
    mapped = np.memmap(path, np.float32, "r", shape=points.shape)
    twin, small = kernels(), kernels(9_000)

    found = small.assign(small.load(centroids), mapped, second=True, margin=True)

    expected = twin.assign(twin.load(centroids), points, second=True, margin=True)
    for name in ("labels", "distances_squared", "second_labels", "second_distances_squared"):
        assert getattr(found, name).tobytes() == getattr(expected, name).tobytes(), name


def test_a_table_for_margins_that_does_not_fit_is_one_row():
    points, centroids = normal(3, 2), normal(40, 2, 1)
    twin = kernels(6_000)
    model = twin.load(centroids)

    found = twin.assign(model, points, margin=True)

    assert (found.margins >= 0.0).all()
    assert model.steep[0].shape[0] == 1


def test_the_card_says_how_much_of_it_is_taken_and_the_simulator_nothing(monkeypatch):
    module, twin = import_module("pipeline.kernels.cuda.twin"), kernels()
    assert twin.device_memory() is None

    monkeypatch.setattr(module, "SIMULATED", False)
    context = module.cuda.current_context()
    monkeypatch.setattr(type(context), "get_memory_info", lambda _: (3, 10))
    assert twin.device_memory() == (7, 10)

    def silent(_):
        raise module.CudaAPIError(1, "lost")

    monkeypatch.setattr(type(context), "get_memory_info", silent)
    assert twin.device_memory() is None
