"""The peers behind one interface, those of them that are installed, and Eddy's own twins.

Each peer is used as its documentation says. Where a library takes its whole batch at once and a
matrix of all scores would leave the cache, it gets chunks: that is faster for it.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans

from benchmarks._environment import about, features
from benchmarks._floor import Floor, measured
from benchmarks._stage import describe
from benchmarks._vectors import Vectors
from pipeline.kernels.choose import make_kernels
from pipeline.kernels.contract import DevicePolicy, Kernels, Points
from pipeline.kernels.cpu.twin import CpuKernels

CHUNK: Final = 4096
TWINS: Final = (
    # module of pipeline.kernels, class, what the processor must have
    ("avx512.twin", "Avx512Kernels", {"avx512vnni"}),
    ("avx512.amx", "AmxKernels", {"amx-tile", "amx-bf16"}),
)

Assign = Callable[[Points], NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Peer:
    """Another library's way to the nearest centroid."""

    name: str
    assign: Assign
    is_fp32: bool = True


def optional(name: str) -> Any:
    """A module that need not be installed; None, with a word, where it cannot be imported."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        if not isinstance(error, ModuleNotFoundError):
            print(f"{name} is installed, but cannot be imported: {error}")
        return None


# --- peers of assign --------------------------------------------------------------


def assigners(centroids: Points, threads: int, *, isa: str = "native") -> list[Peer]:
    """All peers that are installed, each with its copy of the centroids."""
    makers: list[Callable[[Points, int], Peer | None]]
    makers = [_numpy, _faiss, _sklearn, _torch]
    if isa == "native":  # oneDAL has no switch for the instructions it takes, and bf16 needs them
        makers += [_torch_bf16, _intelex]
    found = [make(centroids, threads) for make in makers]
    return [peer for peer in found if peer is not None]


def chunked(assign: Assign) -> Assign:
    def call(points: Points) -> NDArray[Any]:
        if len(points) <= CHUNK:
            return assign(points)
        starts = range(0, len(points), CHUNK)
        return np.concatenate([assign(points[start : start + CHUNK]) for start in starts])

    return call


def _numpy(centroids: Points, threads: int) -> Peer:
    squares = np.square(centroids).sum(axis=1)
    transposed = centroids.T

    def assign(points: Points) -> NDArray[Any]:
        scores = points @ transposed
        scores *= -2.0
        scores += squares
        return scores.argmin(axis=1)

    return Peer("numpy", chunked(assign))


def _faiss(centroids: Points, threads: int) -> Peer | None:
    faiss = optional("faiss")
    if faiss is None:
        return None
    faiss.omp_set_num_threads(threads)
    index = faiss.IndexFlatL2(centroids.shape[1])
    index.add(centroids)
    return Peer("faiss", lambda points: index.search(points, 1)[1][:, 0])


def _sklearn(centroids: Points, threads: int) -> Peer:
    model = KMeans(len(centroids), init=centroids, n_init=1, max_iter=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that one pass did not converge
        model.fit(centroids)
    model.cluster_centers_ = centroids.copy()
    return Peer("scikit-learn", model.predict)


def _torch(centroids: Points, threads: int) -> Peer | None:
    torch = optional("torch")
    if torch is None:
        return None
    torch.set_num_threads(threads)
    squares = torch.from_numpy(np.square(centroids).sum(axis=1))
    transposed = torch.from_numpy(centroids.copy()).T

    def assign(points: Points) -> NDArray[Any]:
        scores = torch.addmm(squares, torch.from_numpy(points), transposed, alpha=-2.0)
        found: NDArray[Any] = scores.argmin(dim=1).numpy()
        return found

    return Peer("torch", chunked(assign))


def _torch_bf16(centroids: Points, threads: int) -> Peer | None:
    torch = optional("torch")
    if torch is None:
        return None
    squares = torch.from_numpy(np.square(centroids).sum(axis=1))
    transposed = torch.from_numpy(centroids.copy()).to(torch.bfloat16).T.contiguous()

    def assign(points: Points) -> NDArray[Any]:
        product = torch.mm(torch.from_numpy(points).to(torch.bfloat16), transposed)
        found: NDArray[Any] = (squares - 2.0 * product.float()).argmin(dim=1).numpy()
        return found

    return Peer("torch bf16", chunked(assign), is_fp32=False)


def _intelex(centroids: Points, threads: int) -> Peer | None:
    kind = sklearn_intelex(threads)
    if kind is None:
        return None
    # every centroid twice: it takes no fewer points than clusters, and the means stay what they are
    twice = np.concatenate([centroids, centroids])
    model = kind(len(centroids), init=centroids, n_init=1, max_iter=1, tol=0.0).fit(twice)
    assert (model.cluster_centers_ == centroids).all()
    return Peer("scikit-learn-intelex", model.predict)


def sklearn_intelex(threads: int) -> Any:
    """Its `KMeans`, which is given its threads by what lies below; None: there is none."""
    faces, below = optional("sklearnex.cluster"), optional("daal4py")
    if faces is None or below is None:
        return None
    below.daalinit(threads)
    return faces.KMeans


# --- Eddy -------------------------------------------------------------------------


def twins(threads: int, isa: str = "native") -> dict[str, Kernels]:
    """Each CPU twin that this machine runs, the one that would be chosen first."""
    portable = CpuKernels(threads)
    if isa != "native":
        return {portable.name: portable}
    found: dict[str, Kernels] = {}
    chosen = make_kernels(DevicePolicy(kind="cpu", threads=threads))
    found[chosen.name] = chosen
    for module, kind, needs in TWINS:
        if kind_of(chosen) == kind or not needs <= features():
            continue
        twin = _twin(module, kind, threads)
        if twin is not None:
            found.setdefault(twin.name, twin)
    found.setdefault(portable.name, portable)
    return found


def _twin(module: str, kind: str, threads: int) -> Kernels | None:
    try:
        made: Kernels = getattr(importlib.import_module(f"pipeline.kernels.{module}"), kind)(
            threads
        )
    except (ImportError, AttributeError, OSError, RuntimeError, ValueError) as error:
        print(f"the twin {module} does not run here: {error}")
        return None
    return made


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """What every benchmark of arithmetic begins with."""

    vectors: Vectors
    twins: dict[str, Kernels]
    """The chosen one first."""
    floor: Floor
    told: dict[str, Any]
    """About the machine and all else that the figures depend on."""

    @property
    def kernels(self) -> Kernels:
        return next(iter(self.twins.values()))


def stage(options: argparse.Namespace) -> Stage:
    """Load everybody, measure the floor, and print what the figures depend on."""
    vectors = Vectors(options.folder, options.seed)
    found = twins(options.threads, options.isa)
    floor = measured(options.threads, options.isa)
    assigners(vectors.texts[:10], options.threads, isa=options.isa)  # now every BLAS is there
    told = about(options, vectors.told)
    told |= {"floor": floor.told(), "kernel": next(iter(found)), "twins": list(found)}
    print(describe(told), "; ".join(told["blas"]), floor.told(), told["data"], sep="\n")
    print(f"{options.threads} threads each; Eddy's kernel {told['kernel']}")
    return Stage(vectors, found, floor, told)


def ways(model: Any) -> list[Any]:
    """How a model may be searched (`pipeline.kernels.cpu.ways`); nothing of a twin that has one."""
    return list(getattr(model, "ways", ()))


def bound_to(kernels: Kernels, centroids: Points, chosen: list[Any]) -> Any:
    """A model that is searched in the given ways only, whatever seems the cheapest."""
    model = kernels.load(centroids)
    model.ways[:] = chosen
    model.n_until_prefix = np.inf
    return model


def takes(operation: Callable[..., Any], name: str) -> bool:
    """Whether a twin, or a function, knows an argument already."""
    return name in inspect.signature(operation).parameters


def kind_of(kernels: Kernels) -> str:
    return type(kernels).__name__
