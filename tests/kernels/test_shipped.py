"""Code that came with the installation is used; what is not in it is compiled as ever."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CALL = """
import sys
from pathlib import Path
from pipeline.kernels import deciding, shipped
from pipeline.kernels.compiling import tell_of_compiling

tell_of_compiling(lambda words: print("compiles"))
shipped.offer(Path(sys.argv[1]))
shipped.offer(Path(sys.argv[1]))  # nothing is done twice
print(deciding.round_down(1.0) < 1.0)
"""


def called(own: Path, offered: Path) -> list[str]:
    """What a process says that keeps its code in one folder, and is offered another."""
    done = subprocess.run(
        [sys.executable, "-c", CALL, offered],
        env=os.environ | {"NUMBA_CACHE_DIR": str(own)},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """A folder as an image has it, made where nothing was."""
    folder = tmp_path_factory.mktemp("image")
    assert called(folder, folder / "none") == ["compiles", "True"]
    return folder


def test_code_that_is_offered_is_not_compiled_again_and_stays_where_it_is(image, tmp_path):
    before = {path: path.read_bytes() for path in image.rglob("*") if path.is_file()}

    assert called(tmp_path, image) == ["True"]

    assert before == {path: path.read_bytes() for path in image.rglob("*") if path.is_file()}
    assert not list(tmp_path.rglob("*.nbc"))


def test_what_is_not_in_it_is_compiled_and_kept_where_it_always_was(image, tmp_path):
    for path in image.rglob("*round_down*.nbi"):
        path.unlink()

    assert called(tmp_path, image) == ["compiles", "True"]
    assert list(tmp_path.rglob("*round_down*.nbi"))
