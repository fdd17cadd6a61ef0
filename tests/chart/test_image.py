"""The Containerfile keeps its promises; a container engine is needed only to build it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from pipeline.kernels import shipped
from tests.chart.chart import ROOT, rendered

TEXT = (ROOT / "Containerfile").read_text(encoding="utf-8")
LINES = re.sub(r"\\\n\s*", " ", re.sub(r"^#.*\n", "", TEXT, flags=re.MULTILINE)).splitlines()
FLAVOURS = ("cpu", "gpu")


def stages() -> dict[str, tuple[str, list[str]]]:
    """Name -> what it stands on, and its lines."""
    found: dict[str, tuple[str, list[str]]] = {}
    lines: list[str] = []
    for line in LINES:
        if match := re.fullmatch(r"FROM (\S+) AS (\S+)", line):
            lines = []
            found[match[2]] = (match[1], lines)
        else:
            lines.append(line)
    return found


def lines_of(stage: str) -> list[str]:
    """Its lines, with those of the stages it stands on before them."""
    base, own = stages()[stage]
    return (lines_of(base) if base in stages() else []) + own


def test_base_is_an_argument_without_a_default():
    """A digest comes with a release; one that nobody has seen is worse than none."""
    bases = {base for base, _ in stages().values()} - {*stages()}

    assert bases == {"${PYTHON_IMAGE}"}
    assert "ARG PYTHON_IMAGE" in LINES
    assert not re.search(r"sha256:[0-9a-f]{8}", TEXT)
    assert ":latest" not in TEXT


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_final_stage_is_not_root_and_begins_eddy_itself(flavour):
    lines = lines_of(flavour)

    assert [line for line in lines if line.startswith("USER")] == ["USER 65532:65532"]
    assert 'ENTRYPOINT ["eddy"]' in lines
    assert not any(line.startswith("HEALTHCHECK") for line in lines)
    user = rendered().template("assigner")["spec"]["securityContext"]["runAsUser"]
    assert f"USER {user}:{user}" in lines


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_final_stage_installs_nothing(flavour):
    runs = [line for line in lines_of(flavour) if line.startswith("RUN")]

    assert runs == ["RUN install -d -o 65532 -g 65532 /var/lib/eddy"]
    assert not re.search(r"\b(apt|apk|gcc|g\+\+|build-essential|curl|wget)\b", "\n".join(LINES))


@pytest.mark.parametrize(("flavour", "lock"), [("cpu", ""), ("gpu", "-gpu")])
def test_packages_are_wheels_with_hashes_of_the_lock(flavour, lock):
    installs = [line for line in lines_of(f"build-{flavour}") if "pip install" in line]

    assert len(installs) == 2
    assert "--require-hashes --only-binary :all:" in installs[0]
    assert installs[0].endswith(f"-r /src/requirements{lock}.txt")
    assert "--no-deps --no-index" in installs[1]


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_compiled_loops_are_in_the_image_where_a_process_looks_for_them(flavour):
    last = [line for line in lines_of(f"build-{flavour}") if line.startswith("RUN")][-1]
    place = re.search(r"NUMBA_CACHE_DIR=(\S+) .*/opt/eddy/bin/python -m (\S+)", last)

    assert place
    assert place[1] == f"/opt/eddy/{shipped.FOLDER.relative_to(sys.prefix)}"
    assert find_spec(place[2])


def test_flavours_differ_by_their_lock_alone():
    cpu, gpu = (
        [line.replace("-gpu", "") for line in stages()[f"build-{one}"][1]] for one in FLAVOURS
    )

    assert cpu == gpu


def test_no_secret_and_nothing_but_three_files_reach_a_layer():
    copied = {line.split()[1] for line in LINES if line.startswith("COPY") and "--from" not in line}
    ignore = (ROOT / ".containerignore").read_text()
    allowed = {line[1:] for line in ignore.splitlines() if line.startswith("!")}

    assert copied == allowed
    assert "*" in ignore.splitlines()
    assert not re.search(r"(?i)password|token|secret", "\n".join(LINES))
    assert (ROOT / ".dockerignore").read_text() == ignore


def test_places_that_are_written_are_those_that_the_chart_mounts():
    env = rendered().env("assigner")
    mounts = {one["mountPath"] for one in rendered().container("assigner")["volumeMounts"]}

    for name in ("HOME", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR"):
        assert f"{name}={env[name]}" in TEXT
        assert any(env[name].startswith(mount) for mount in mounts)


def test_version_is_the_package_s():
    version = re.search(r"ARG VERSION=(\S+)", TEXT)

    assert version
    assert f'version = "{version[1]}"' in (ROOT / "pyproject.toml").read_text()


def engine() -> str | None:
    """A container engine that answers."""
    for name in ("docker", "podman"):
        program = shutil.which(name)
        if program and subprocess.run([program, "info"], capture_output=True).returncode == 0:
            return program
    return None


@pytest.mark.docker
def test_image_builds_and_runs_on_a_read_only_root(tmp_path: Path):
    program = engine()
    if program is None:
        pytest.skip("no container engine runs here")
    subprocess.run(
        [ROOT / ".venv/bin/python", "-m", "hatchling", "build", "-t", "wheel"], cwd=ROOT, check=True
    )
    base = ["--build-arg", "PYTHON_IMAGE=python:3.12-slim"]
    build = [program, "build", "-f", "Containerfile", "--target", "cpu", *base, "-t", "eddy:test"]
    subprocess.run([*build, "."], cwd=ROOT, check=True)

    shown = subprocess.run(
        [program, "run", "--rm", "--read-only", "--tmpfs", "/tmp", "eddy:test", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )

    assert shown.stdout.strip()
