"""Who has to wait for the compiler is told so, once."""

from __future__ import annotations

import pytest
from numba import njit

from pipeline.kernels.compiling import tell_of_compiling


@pytest.mark.parametrize(("module", "n_told"), [("pipeline.kernels.new", 1), ("umap.new", 0)])
def test_one_who_has_to_wait_for_the_compiler_is_told_once(module, n_told):
    told = []
    tell_of_compiling(told.append)

    def new(x):
        return x + 1

    new.__module__ = module
    compiled = njit(new)
    compiled(1)
    compiled(1.0)

    assert len(told) == n_told
