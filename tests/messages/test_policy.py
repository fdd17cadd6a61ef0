"""Policies: a bad option is refused where it is built, by its path."""

from __future__ import annotations

import pytest

from pipeline.errors import ConfigError
from pipeline.messages.policy import EmbeddingPolicy, EventPolicy, LimitPolicy


@pytest.mark.parametrize(
    ("policy", "options", "path"),
    [
        (EmbeddingPolicy, {"dimensions": 0}, "embedding.dimensions"),
        (EmbeddingPolicy, {"dimensions": 16_385}, "embedding.dimensions"),
        (EmbeddingPolicy, {"metric": "manhattan"}, "embedding.metric"),
        (EmbeddingPolicy, {"model": ""}, "embedding.model"),
        (EmbeddingPolicy, {"content_type": "text/plain"}, "embedding.content_type"),
        (EmbeddingPolicy, {"max_component": 100.0}, "embedding.max_component"),
        (EmbeddingPolicy, {"max_component": 0.0}, "embedding.max_component"),
        (EmbeddingPolicy, {"max_component": -256.0}, "embedding.max_component"),
        (EmbeddingPolicy, {"max_component": float("nan")}, "embedding.max_component"),
        (EmbeddingPolicy, {"max_component": float("inf")}, "embedding.max_component"),
        (EmbeddingPolicy, {"max_component": 2.0, "metric": "cosine"}, "embedding.max_component"),
        (LimitPolicy, {"max_record_bytes": 100}, "limits.max_record_bytes"),
        (LimitPolicy, {"max_record_bytes": 2**31}, "limits.max_record_bytes"),
        (LimitPolicy, {"max_items_per_partition": 0}, "limits.max_items_per_partition"),
        (LimitPolicy, {"max_items_per_partition": 2**23}, "limits.max_items_per_partition"),
        (EventPolicy, {"envelope": "avro"}, "events.envelope"),
        (EventPolicy, {"metadata": ("a", "a")}, "events.metadata"),
        (EventPolicy, {"metadata": ("",)}, "events.metadata"),
    ],
)
def test_a_bad_option_is_refused_by_its_path(policy, options, path):
    with pytest.raises(ConfigError, match=f"^{path} is "):
        policy(**options)


@pytest.mark.parametrize(
    ("options", "largest"),
    [({}, 256.0), ({"metric": "cosine"}, 1.0), ({"max_component": 0.5}, 0.5),
     ({"max_component": 1, "metric": "cosine"}, 1.0), ({"max_component": 1024}, 1024.0)],
)  # fmt: skip
def test_the_largest_component_follows_the_metric(options, largest):
    assert EmbeddingPolicy(**options).largest_component == largest
