"""Compiled code that came with the installation, so that no process has to wait for the compiler.

An image is made with a folder of it (``python -m pipeline.cli.precompile``). It is read only, so
numba cannot keep anything there; what is not in it is compiled, and kept where it always was.
Code is kept by the exact processor: on another one than the image was made on, nothing is found.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from copy import copy
from pathlib import Path
from typing import Any, Final

from numba.core.caching import _CacheLocator

FOLDER: Final = Path(sys.prefix) / "share" / "eddy" / "kernels"
"""Where it lies: within the environment, so that one installation cannot read another's."""


def offer(folder: Path = FOLDER) -> None:
    """Have every loop that is imported, once it finds no code of its own, look into the folder.

    Said here, not where loops are made: what stands there is part of what says whether code is
    fresh.
    """
    if folder.is_dir():
        for function, index in _loops():
            if "load" not in vars(index):
                _also_in(folder, function, index)


def _loops() -> Iterator[tuple[Any, Any]]:
    """Each function of the room that is kept on disk, and numba's index of its code."""
    for name, module in list(sys.modules.items()):
        if name.startswith("pipeline.kernels."):
            for value in vars(module).values():
                index = getattr(getattr(value, "_cache", None), "_cache_file", None)
                if hasattr(index, "_index_path") and hasattr(value, "py_func"):
                    yield value.py_func, index


def _also_in(folder: Path, function: Any, index: Any) -> None:
    there = copy(index)
    vars(there).pop("_load_index", None)  # which reads that of the other one
    file = function.__code__.co_filename
    of_package = _CacheLocator.get_suitable_cache_subpath(file)  # type: ignore[no-untyped-call]
    there._cache_path = str(folder / of_package)
    there._index_path = os.path.join(there._cache_path, index._index_name)
    kept = index.load

    def load(key: Any) -> Any:
        found = kept(key)
        return there.load(key) if found is None else found

    index.load = load
