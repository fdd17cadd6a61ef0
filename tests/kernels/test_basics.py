"""How compiled code is kept on disk."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.kernels.nearby import squared_distances

MODULE = """
from typing import NamedTuple
from pipeline.kernels.basics import compiler

class {name}(NamedTuple):
    x: int

@compiler()()
def twice(pair):
    return 2 * pair.x

print(twice({name}(21)))
"""


@pytest.mark.parametrize("guarded", [True, False])
def test_an_index_that_names_a_class_which_is_gone_is_as_good_as_none(tmp_path, guarded):
    text = MODULE if guarded else MODULE.replace(
        "@compiler()()", "from numba import njit\n\n@njit(cache=True)"
    )  # fmt: skip

    def run(name):
        (tmp_path / "kept.py").write_text(text.format(name=name))
        return subprocess.run(
            [sys.executable, "-c", "import kept"],
            cwd=tmp_path, capture_output=True, text=True, check=False,
            env={"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}", "PATH": ""},
        )  # fmt: skip

    assert run("Before").stdout == "42\n"
    after = run("After")

    assert (after.stdout == "42\n") == guarded, after.stderr


def test_rows_are_measured_where_they_lie():
    random = np.random.default_rng(1)
    vectors = random.normal(1000, 1, (50, 37)).astype(np.float32)
    point = vectors[7] + np.float32(0.25)

    for rows in ([], [3], [49, 0, 7, 7, 12, 30]):
        squared = np.empty(len(rows))
        squared_distances(vectors, np.array(rows, np.intp), point, squared)

        gaps = vectors[rows].astype(float) - point
        assert squared == pytest.approx((gaps**2).sum(axis=1), rel=1e-14)
