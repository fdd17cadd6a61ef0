"""The instructions of `pipeline.kernels.cuda.ptx` in Python, for the simulator of CUDA.

Written from the tables of "Parallel Thread Execution ISA", 9.0, and from nothing else: which
thread holds which element stands here a second time, as formulas of row and column, so a kernel
that multiplies what it should has its fragments right.

What the hardware leaves open is done in the least friendly way: copies arrive when they are
waited for and not before, or at once, over what is there; and a matrix unit truncates its sums.
"""

from __future__ import annotations

import threading

import numpy as np

LANES = 32


class _Warp:
    """What threads of one warp have to say to each other."""

    def __init__(self):
        self.barrier = threading.Barrier(LANES, timeout=60)
        self.said = [[None] * LANES, [None] * LANES]


class Warps:
    """Twins of the instructions, and what they share: groups of copies, and rendezvous."""

    def __init__(self, *, is_late):
        self._is_late = is_late
        self._warps = {}
        self._lock = threading.Lock()
        self._mine = threading.local()

    def _exchange(self, value):
        """All threads of a warp call this; each gets what all have said, by lane."""
        thread = threading.current_thread()
        number = thread.threadIdx.x
        key = thread._manager, number // LANES
        with self._lock:
            warp = self._warps.setdefault(key, _Warp())
        turn = getattr(self._mine, "turn", 0)
        self._mine.turn = 1 - turn  # so nobody writes where somebody still reads
        warp.said[turn][number % LANES] = value
        warp.barrier.wait()
        return warp.said[turn], number % LANES

    def load_matrices(self, shared, index):
        index = int(index)
        assert index % 8 == 0, "a row is not aligned to 16 bytes"
        starts, lane = self._exchange(index)
        words = flat(shared).view(np.uint32)
        # row i/4 of each matrix; thread i has its elements 2 (i mod 4) and the next
        return tuple(words[starts[8 * matrix + lane // 4] // 2 + lane % 4] for matrix in range(4))

    def multiply_add(self, *registers):
        assert [type(r) for r in registers] == [np.uint32] * 6 + [np.float32] * 4
        fragments, lane = self._exchange(registers)
        product = truncated_sum(*self._matrices(fragments)) if lane == 0 else None
        d = self._exchange(product)[0][0]
        group, place = lane // 4, lane % 4
        rows, columns = (group, group, group + 8, group + 8), (2 * place, 2 * place + 1) * 2
        return tuple(d[rows, columns])

    def _matrices(self, fragments):
        """A, B and C from the registers of all threads."""
        a = np.empty((16, 16), np.float16)
        b = np.empty((16, 8), np.float16)
        c = np.empty((16, 8), np.float32)
        for thread, fragment in enumerate(fragments):
            group, place = thread // 4, thread % 4
            for i, half in enumerate(halves(fragment[:4])):
                row = group if i in (0, 1, 4, 5) else group + 8
                a[row, 2 * place + i % 2 + (8 if i >= 4 else 0)] = half
            for i, half in enumerate(halves(fragment[4:6])):
                b[2 * place + i % 2 + (8 if i >= 2 else 0), group] = half
            for i, real in enumerate(fragment[6:]):
                c[group + (8 if i >= 2 else 0), 2 * place + i % 2] = real
        return a, b, c

    def copy_16(self, shared, to, array, index):
        to, index = int(to), int(index)
        assert to % 8 == index % 8 == 0, "a copy is not aligned to 16 bytes"
        assert 0 <= index <= array.size - 8, "a copy reads past the end"
        copy = flat(shared), to, flat(array), index
        if self._is_late:
            self._groups()[-1].append(copy)
        else:
            _copy(*copy)

    def _groups(self):
        if not hasattr(self._mine, "groups"):
            self._mine.groups = [[]]
        return self._mine.groups

    def end_group(self):
        self._groups().append([])

    def _wait(self, n_left):
        groups = self._groups()
        while len(groups) - 1 > n_left:
            for copy in groups.pop(0):
                _copy(*copy)

    def wait_but_one(self):
        self._wait(1)

    def wait_all(self):
        self._wait(0)


def _copy(shared, to, array, index):
    shared[to : to + 8] = array[index : index + 8]


def flat(array):
    """The elements of an array of the simulator, in order."""
    while not isinstance(array, np.ndarray):
        array = array.__dict__.get("_item", array.__dict__.get("_ary"))
    assert array.flags.c_contiguous
    return array.reshape(-1)


def halves(words):
    """fp16 numbers of 32-bit registers, the lower half first."""
    return np.array(words, np.uint32).view(np.float16)


def truncated_sum(a, b, c, bits=23):
    """A·B + C as a matrix unit may do it: aligned to the largest term, then cut off towards zero.

    Products of fp16 are exact in float32. Four of them at a time, as the oldest units do it.
    """
    total = c.astype(np.float64)
    products = a.astype(np.float64)[:, :, None] * b.astype(np.float64)[None]
    for start in range(0, a.shape[1], 4):
        terms = np.concatenate([products[:, start : start + 4], total[:, None]], axis=1)
        total = cut(terms, unit_of(np.abs(terms).max(axis=1, keepdims=True), bits)).sum(axis=1)
        total = cut(total, unit_of(np.abs(total), bits))
    return total.astype(np.float32)


def unit_of(values, bits):
    """The last of so many bits behind the first."""
    return 2.0 ** (np.frexp(values)[1] - 1.0 - bits)


def cut(values, unit):
    return np.trunc(values / unit) * unit


def load_4(array, index):
    assert int(index) % 4 == 0, "a load is not aligned to 16 bytes"
    return tuple(flat(array)[int(index) : int(index) + 4])


def store_2(array, index, first, second):
    assert int(index) % 4 == 0, "a store is not aligned to 8 bytes"
    flat(array)[int(index) : int(index) + 4] = np.array([first, second], np.uint32).view(np.uint16)


def to_half(value):
    return np.float16(value).view(np.uint16)


def from_half(bits):
    return np.uint16(bits).view(np.float16).astype(np.float32)


def install(monkeypatch, sweeps, tensor, *, is_late=True):
    """Put the twins where the kernels look for the instructions."""
    warps = Warps(is_late=is_late)
    for name in ("load_matrices", "multiply_add", "copy_16", "end_group", "wait_but_one"):
        monkeypatch.setattr(sweeps, name, getattr(warps, name))
    monkeypatch.setattr(sweeps, "wait_all", warps.wait_all)
    for function in (load_4, store_2, to_half, from_half):
        monkeypatch.setattr(tensor, function.__name__, function)
