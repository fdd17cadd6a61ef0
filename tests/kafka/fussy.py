"""``eddy`` on a device that fails at one vector: no other input makes a record poison."""

from __future__ import annotations

import sys

from pipeline.cli.context import Twins, open_device
from pipeline.cli.main import main

UNLUCKY = 13.0
SIGH = "not thirteen again"
"""Goes to stderr at every call that fails."""


class FussyKernels:
    """Kernels that cannot stand a first component of 13."""

    def __init__(self, kernels):
        self._kernels = kernels

    def __getattr__(self, name):
        return getattr(self._kernels, name)

    def assign(self, model, points, **named):
        if (points[:, 0] == UNLUCKY).any():
            print(SIGH, file=sys.stderr, flush=True)
            raise ArithmeticError("thirteen")
        return self._kernels.assign(model, points, **named)


if __name__ == "__main__":
    sys.exit(main(twins=Twins(kernels=lambda config: FussyKernels(open_device(config)))))
