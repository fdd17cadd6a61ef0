"""How much memory there is, and what is said where a full partition would not fit."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from pipeline.config import Config
from pipeline.messages.policy import LimitPolicy
from pipeline.services.room import memory_bytes, shortage

MACHINE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.fixture
def groups(tmp_path):
    """Control groups as files: a function that writes them, and one that asks."""
    own = tmp_path / "own"

    def given(lines, **limits):
        own.write_text("\n".join(lines))
        for name, text in limits.items():
            path = tmp_path / "cgroup" / name.replace("__", "/")
            path = path.with_name(path.name.replace("_max", ".max").replace("limit_", "limit_"))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return memory_bytes(tmp_path / "cgroup", own)

    return given


def test_without_a_limit_it_is_what_the_machine_has(groups):
    assert groups([]) == MACHINE
    assert groups(["0::/a"], a__memory_max="max\n") == MACHINE


def test_the_limit_of_a_container_counts_which_sees_its_own_group_at_the_root(groups):
    assert groups(["0::/"], memory_max="1000000\n") == 1_000_000


def test_the_smallest_limit_of_the_groups_around_counts(groups):
    limits = {"a__b__memory_max": "3000000", "a__memory_max": "2000000"}
    assert groups(["0::/a/b"], **limits) == 2_000_000
    assert groups(["0::/c"], **limits) == MACHINE


def test_the_first_version_has_another_file(groups):
    path = {"memory__a__memory.limit_in_bytes": "4000000"}
    assert groups(["4:memory:/a", "1:cpu:/"], **path) == 4_000_000


def test_a_limit_of_items_that_fits_is_no_shortage():
    config = Config(limits=LimitPolicy(max_items_per_partition=1000))

    assert shortage(config, 10 * 2**20) is None


def test_a_limit_of_items_that_does_not_fit_is_told_with_one_that_does():
    config = Config(limits=LimitPolicy(max_items_per_partition=1_000_000))

    problem = shortage(config, 2**30)

    assert "limits.max_items_per_partition is 1000000" in problem
    assert "there are 1.0 GiB" in problem
    fitting = int(problem.split("set it to ")[1].split()[0])
    assert (
        shortage(replace(config, limits=LimitPolicy(max_items_per_partition=fitting)), 2**30)
        is None
    )
