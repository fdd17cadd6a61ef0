"""What the assigners have published: members by cluster, and how far the partitions are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.cli.reading import whole
from pipeline.config import Config
from pipeline.engine.totals import Totals
from pipeline.messages.events import Head
from pipeline.messages.model import Manifest
from pipeline.streams.contract import Broker


@dataclass(frozen=True, slots=True)
class Standing:
    """What all partitions add up to, beside the model it is held against."""

    manifest: Manifest
    totals: Totals
    n_partitions: int

    @property
    def heads(self) -> Mapping[int, Head]:
        """Partition -> its newest head."""
        return self.totals.heads

    @property
    def swept(self) -> list[int]:
        """Partitions whose members have all been held against this very model."""
        newest = (self.manifest.epoch, self.manifest.revision)
        return [p for p, head in self.heads.items() if (head.epoch, head.revision) == newest]

    @property
    def members(self) -> dict[str, int]:
        """Cluster -> its members in all partitions; empty before anything was published."""
        if not self.heads:
            return {}
        clusters = self.manifest.clusters
        return dict(zip(clusters, self.totals.counts(clusters).tolist(), strict=True))


def read_standing(broker: Broker, config: Config, manifest: Manifest) -> Standing:
    """Everything that stands in ``cluster-stats``; nothing where the topic is missing."""
    topic, n_partitions = config.topics.statistics, config.topics.partitions
    totals = Totals(n_partitions, manifest.dimensions, max_component=manifest.max_component)
    if topic in broker.topics([topic]):
        for records in whole(broker, topic):
            totals.fold(records)
        totals.opened()
    return Standing(manifest, totals, n_partitions)
