"""Where clusters stand on the map, kept up with the models, on a thread of its own.

What is arithmetic is in :mod:`pipeline.clustering.layout`, with what replicas have in common.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

import numpy as np

from pipeline.clustering.layout import Layout, epoch_layout, revised_layout
from pipeline.messages.model import Model
from pipeline.services.server.desk import Desk
from pipeline.telemetry.logs import get_logger

PAUSE_S: Final = 0.5
"""Between two maps at least: the page eases from one to the next."""
SHARE: Final = 10
"""Making maps takes at most one part in so many of the time."""
DECIMALS: Final = 4


class Positions:
    """Puts `Desk.places` in place.

    Parameters
    ----------
    clock
        Seconds of a clock that never goes back.
    """

    def __init__(self, desk: Desk, clock: Callable[[], float] = time.monotonic) -> None:
        self._desk, self._clock = desk, clock
        self._executor = ThreadPoolExecutor(1, "eddy-map")
        self._running: Future[None] | None = None
        self._due_at = float("-inf")
        self._drawn: Model | None = None
        self._epoch: Layout | None = None
        """As the newest epoch began."""
        self._newest: Layout | None = None
        self._is_closed = False

    def step(self) -> None:
        """Begin a new map if there is another model, and it is time; does not wait for it."""
        if self._running is not None:
            if not self._running.done():
                return
            self._running.result()
            self._running = None
        if self._desk.view.model is not self._drawn and self._clock() >= self._due_at:
            self._running = self._executor.submit(self.turn)

    def turn(self) -> None:
        """Make the map of the newest model; one thread at a time."""
        began_at = self._clock()
        try:
            while (model := self._next()) is not None and not self._is_closed:
                self._draw(model)
        except np.linalg.LinAlgError as error:  # the map stays as it was
            self._drawn = self._desk.view.model
            get_logger().error(
                "request_failed", request_id="", code="LinAlgError", problem=str(error)
            )
        if self._newest is not None:
            rounded = self._newest.places.round(DECIMALS).tolist()
            self._desk.places = {
                cluster: (x, y)
                for cluster, (x, y) in zip(self._newest.clusters, rounded, strict=True)
            }
        now = self._clock()
        self._due_at = now + max(PAUSE_S, SHARE * (now - began_at))

    def close(self) -> None:
        """Begin nothing more."""
        self._is_closed = True
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _next(self) -> Model | None:
        """What has to be drawn next to come to the newest model: no epoch that is kept is left out.

        Of an epoch that has ended, its last revision is: from there the next one goes on.
        """
        with self._desk.looking() as view:
            newest, drawn = view.model, self._drawn
            if newest is drawn or newest is None:
                return None
            last = newest.manifest.epoch
            at = -1 if drawn is None else drawn.manifest.epoch
            for epoch in sorted(epoch for epoch in view.models.epochs if at <= epoch < last):
                model = view.models.model_of(epoch)
                if model is None or (
                    drawn is not None and model.manifest.epoch == at
                    and model.manifest.revision <= drawn.manifest.revision
                ):  # fmt: skip
                    continue
                return model
            return newest

    def _draw(self, model: Model) -> None:
        manifest, is_cosine = model.manifest, model.manifest.metric == "cosine"
        if self._drawn is None or self._drawn.manifest.epoch != manifest.epoch:
            self._epoch = epoch_layout(
                manifest.clusters, model.fitted, is_cosine=is_cosine, before=self._newest
            )
        assert self._epoch is not None
        self._newest = revised_layout(self._epoch, model.centroids, is_cosine=is_cosine)
        self._drawn = model
