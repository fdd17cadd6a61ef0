"""The tensor-core kernels, instruction by instruction, on the simulator."""

from __future__ import annotations

import sys
from importlib import import_module

import numpy as np
import pytest

from tests import naive
from tests.kernels.cases import CASES, SIMULATED, normal
from tests.kernels.cuda import warp
from tests.kernels.test_contract import wrong

TURN_SECONDS = 1e-3  # these threads do more between two meetings than those of other kernels
N_POINTS = 21  # more than a tile of 16, less than two: the last block moves up


def imported():
    names = ("twin", "tensor", "sweeps")
    return tuple(import_module(f"pipeline.kernels.cuda.{name}") for name in names)


@pytest.fixture
def modules(monkeypatch):
    if not SIMULATED:
        pytest.skip("runs within the suite on the simulator")
    twin, tensor, sweeps = imported()
    warp.install(monkeypatch, sweeps, tensor)
    before = sys.getswitchinterval()
    sys.setswitchinterval(TURN_SECONDS)
    yield twin, tensor, sweeps
    sys.setswitchinterval(before)


@pytest.fixture
def make_twin(modules, monkeypatch):
    """Makes a twin that always takes the tensor path, in tiles that the simulator can bear."""
    twin, tensor, sweeps = modules

    def make(kind=None, **tile):
        made = sweeps.make_sweeps(sweeps.Tile(**(SMALL | tile)))
        monkeypatch.setattr(tensor, "SWEEPS", made)
        monkeypatch.setattr(tensor, "BORDER_SWEEPS", made)
        monkeypatch.setattr(twin, "MIN_POINTS", made.tile.n_points)
        return (kind or twin.CudaKernels)(tensor=True)

    return make


SMALL = {"n_points": 16, "n_clusters": 16, "point_warps": 1, "cluster_warps": 1}


def some(case):
    """As many points of a case as are wanted here, over and over where it has fewer."""
    points, centroids = CASES[case]()
    return np.resize(points, (N_POINTS, points.shape[1])), centroids


CHOSEN = [
    "plain",
    "one cluster",
    "one dimension",
    "duplicated centroids",
    "near ties far out",
    "scaled by 1e-42",
    "one huge centroid",
    "heavy tails",
    "gaps of 1e-4",
    "huge points",
]


@pytest.mark.parametrize("case", CHOSEN)
def test_assign_gives_the_canonical_nearest_two(make_twin, case):
    assert wrong(make_twin(), *some(case)) == set()


def test_a_control_without_bound_is_caught(make_twin, modules):
    class KnowsNoRounding(modules[0].CudaKernels):
        def load(self, centroids):
            model = super().load(centroids)
            for array in (model.tensor.reaches, model.tensor.residuals):
                array[:] = 0.0
            return model

    assert wrong(make_twin(KnowsNoRounding), *some("gaps of 1e-4")) & {"labels", "gaps"}


# The kernel by itself


def proposals(modules, points, centroids):
    """What the tile kernel says, in units of the data, and what is true: two sorted arrays."""
    cuda = import_module("numba.cuda")
    bounded = import_module("pipeline.kernels.bounds").bounded
    tensor = modules[1]
    host = bounded(centroids)
    n_points, n_dims = points.shape
    middle, *arrays = (cuda.to_device(a) for a in (host.middle, *tensor.tensor_arrays(host)))
    model = tensor.tensor_model(host, middle, arrays)
    shape = n_points, tensor.padded_dims(n_dims)
    operands = tensor.Operands(
        cuda.device_array(shape, np.uint16),
        cuda.device_array(n_points, np.float32),
        cuda.device_array(n_points, np.float32),
    )
    lengths = cuda.device_array(n_points, np.float64)
    slopes, least = (cuda.device_array(n_points, np.float32) for _ in range(2))
    labels = cuda.device_array(n_points, np.int32)
    x = cuda.to_device(points)
    tensor.nearest_by_tensor(model, x, operands, lengths, slopes, labels, least)
    z = points.astype(np.float64) - host.middle
    w = centroids.astype(np.float64) - host.middle
    scores = np.square(w).sum(axis=1) - 2.0 * z @ w.T
    return labels.copy_to_host(), least.copy_to_host() * model.unit, scores


def use_tile(monkeypatch, modules, **tile):
    _, tensor, sweeps = modules
    monkeypatch.setattr(tensor, "SWEEPS", sweeps.make_sweeps(sweeps.Tile(**tile)))


def is_near_and_below(labels, least, scores):
    """Whether the next least bound is below the second least score, and hardly so."""
    ranked = np.sort(scores, axis=1)
    spread = np.abs(scores).mean()
    right = (labels == scores.argmin(axis=1)).mean() > 0.9  # bounds of two may be in another order
    return right and ((least <= ranked[:, 1]) & (least > ranked[:, 1] - 0.01 * spread)).all()


WHOLE = {}  # the tile of a device
LONG = {"n_points": 32, "n_clusters": 32, "point_warps": 1, "cluster_warps": 2}


@pytest.mark.parametrize(
    ("tile", "n", "d", "k", "is_late"),
    [(WHOLE, 128, 64, 100, True), (LONG, 37, 100, 40, True), (LONG, 37, 100, 40, False)],
    ids=["whole tile", "late copies", "early copies"],
)
def test_bounds_are_below_the_scores_and_near_them(modules, monkeypatch, tile, n, d, k, is_late):
    warp.install(monkeypatch, modules[2], modules[1], is_late=is_late)
    use_tile(monkeypatch, modules, **tile)

    assert is_near_and_below(*proposals(modules, normal(n, d), normal(k, d, 1)))


@pytest.mark.parametrize("fault", ["fragment", "wait"])
def test_a_fault_in_a_kernel_is_seen(modules, monkeypatch, fault):
    use_tile(monkeypatch, modules, **SMALL)
    sweeps = modules[2]
    if fault == "fragment":
        load = sweeps.load_matrices
        monkeypatch.setattr(
            sweeps, "load_matrices", lambda *where: tuple(load(*where)[i] for i in (0, 2, 1, 3))
        )
    else:
        monkeypatch.setattr(sweeps, "wait_but_one", lambda: None)

    assert not is_near_and_below(*proposals(modules, normal(N_POINTS, 70), normal(20, 70, 1)))


def just_below_the_last_bit():
    """One large product and many that a unit may cut off; fp16 holds all, the mean is zero."""
    n_dims = 64
    x = np.ones((128, n_dims), np.float32)
    c = np.full(n_dims, 2.0**-9 * (1.0 - 2.0**-10), np.float32)
    x[:, 0] = c[0] = 128.0
    return x, np.array([c, c, -c, -c])


@pytest.mark.parametrize("growth", [None, 0.0])
def test_truncated_sums_are_within_the_bound(modules, monkeypatch, growth):
    use_tile(monkeypatch, modules, **SMALL)
    points, centroids = just_below_the_last_bit()
    if growth is not None:  # the control
        make = modules[1].tensor_model
        monkeypatch.setattr(
            modules[1], "tensor_model", lambda *given: make(*given)._replace(growth=growth)
        )

    _, least, scores = proposals(modules, points[:N_POINTS], centroids)

    assert (least <= np.sort(scores, axis=1)[:, 1]).all() == (growth is None)


@pytest.mark.gpu
def test_sums_of_a_device_are_within_the_bound():
    """What decides whether u' is large enough for a new architecture."""
    if SIMULATED or not pytest.importorskip("numba.cuda").is_available():
        pytest.skip("no CUDA device answers")
    points, centroids = just_below_the_last_bit()
    for order in (np.arange(64), np.arange(64)[::-1], np.random.default_rng(0).permutation(64)):
        x, c = (np.ascontiguousarray(rows[:, order]) for rows in (points, centroids))
        _, least, scores = proposals(imported(), x, c)
        assert (least <= np.sort(scores, axis=1)[:, 1]).all()


# Which path is taken


def test_few_points_and_doubtful_models_are_left_to_float32(make_twin, modules, monkeypatch):
    monkeypatch.setattr(modules[0], "MIN_SAMPLE", 1)
    kernels = make_twin()
    points, centroids = some("duplicated centroids")
    model = kernels.load(centroids)

    few = kernels.assign(model, points[:15])
    assert model.doubt.n_points == 0
    first = kernels.assign(model, points)
    assert (model.doubt.n_points, model.doubt.n_doubtful) == (N_POINTS, N_POINTS)
    again = kernels.assign(model, points)
    assert model.doubt.n_points == N_POINTS

    assert few.labels.tolist() == first.labels[:15].tolist()
    assert first.labels.tolist() == again.labels.tolist() == naive.assign(points, centroids)[0]


def test_clear_points_are_proven_by_fp16(make_twin):
    kernels = make_twin()
    points, centroids = normal(40, 64), normal(9, 64, 1)
    model = kernels.load(centroids)

    kernels.assign(model, points)

    assert model.doubt.n_points == 40
    assert model.doubt.n_doubtful <= 1


@pytest.mark.parametrize(
    ("capability", "n_clusters", "n_dims", "expected"),
    [
        ((8, 0), 500, 384, True),
        ((9, 0), 500, 384, True),
        ((12, 0), 500, 384, True),
        ((7, 5), 500, 384, False),
        ((9, 0), 2, 384, False),
        ((9, 0), 500, 2, False),
        ((9, 0), 500, 2**17, False),
    ],
)
def test_tensor_cores_are_taken_where_they_are_and_pay(
    modules, capability, n_clusters, n_dims, expected
):
    assert modules[1].suits(capability, n_clusters, n_dims) == expected
