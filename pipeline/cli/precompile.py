"""Compile, before anybody waits for it, what services run: ``python -m pipeline.cli.precompile``.

A service calls this at its start. The build of an image calls it with ``NUMBA_CACHE_DIR`` set to
`pipeline.kernels.shipped.FOLDER`, and every pod on a processor of that kind finds its code there.
"""

from __future__ import annotations

from pipeline.kernels.choose import make_kernels
from pipeline.kernels.contract import DevicePolicy
from pipeline.state import ids
from pipeline.state.view import neighbours

if __name__ == "__main__":
    make_kernels(DevicePolicy(kind="cpu"))  # the twins warm themselves up
    ids.warm_up()
    neighbours.warm_up()
