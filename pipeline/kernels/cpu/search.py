"""Search with float32 operands: the way that every processor has."""

from __future__ import annotations

import ctypes

import numba
from scipy.linalg import cython_blas

from pipeline.kernels.bounds import Borders, BoundedModel
from pipeline.kernels.cpu.loops import assign_parallel, assign_share
from pipeline.kernels.cpu.prefix import NO_PREFIX, Prefix
from pipeline.kernels.cpu.ways import Results, Room

MAX_TILE = 256  # records; more leave the cache, fewer starve the product
MIN_TILE = 64  # unless there are fewer: below it the product loses more than sharing gains
MAX_TILE_SCORES = 2**17  # 512 KiB of float32 beside the points: half a common L2,
LEAST_TILE = 96  # but not fewer records than a product wants, however many centroids there are


class Float32Search:
    """A search of float32 operands, behind a prefix or not."""

    __slots__ = ("_arguments", "model", "prefix", "speed")

    def __init__(self, model: BoundedModel, prefix: Prefix = NO_PREFIX) -> None:
        self.model = model
        self.prefix = prefix
        self.speed = 1.0
        self._arguments = tuple(model), tuple(prefix)

    def tile(self, n_points: int, threads: int) -> int:
        """Within a cache, and two tiles a thread if they pay."""
        share = -(-n_points // threads)
        n_clusters = len(self.model.centroids)
        cached = max(LEAST_TILE, MAX_TILE_SCORES // n_clusters // 16 * 16)
        return max(1, min(MAX_TILE, cached, share, max(MIN_TILE, -(-share // 2))))

    def n_scratch(self, n_tile: int) -> int:
        """float32 that a thread needs."""
        n_clusters, n_dims = self.model.centroids.shape
        row: int = n_dims + len(self.prefix.basis) + n_clusters + 15
        return n_tile * row

    def run(
        self, address: int, n_points: int, n_tile: int, threads: int, borders: Borders, room: Room,
        results: Results,
    ) -> None:  # fmt: skip
        """Label the records at an address."""
        model = *self._arguments, tuple(borders), tuple(room), tuple(results)
        if threads > 1:
            numba.set_num_threads(threads)
            assign_parallel(SGEMM, address, n_points, n_tile, threads, *model)
        else:
            assign_share(SGEMM, address, n_points, n_tile, 0, *model)


def _pointer_of_sgemm() -> int:
    """SciPy's BLAS, the one in whose build we are sure of 32-bit integers and of a version."""
    capsule = cython_blas.__pyx_capi__["sgemm"]
    get_name = ctypes.pythonapi.PyCapsule_GetName
    get_name.restype, get_name.argtypes = ctypes.c_char_p, [ctypes.py_object]
    get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
    get_pointer.restype = ctypes.c_void_p
    get_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    name = get_name(capsule)
    assert b"char *, char *, int *, int *, int *" in name, f"sgemm is {name!r}"
    return int(get_pointer(capsule, name))


SGEMM = _pointer_of_sgemm()
