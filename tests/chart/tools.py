"""The tools of the chart's slower checks, fetched once into ``.venv/chart``."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.chart.chart import ROOT

FOLDER: Final = ROOT / ".venv" / "chart"
NODE_PACKAGES: Final = (
    "@kubernetes-models/gateway-api@0.5.1",
    "@kubernetes-models/keda@0.4.2",
    "@kubernetes-models/prometheus-operator@6.0.0",
)
CHECKOV: Final = "checkov==3.3.30"


def _run(*words: str | Path, cwd: Path | None = None) -> None:
    subprocess.run([str(word) for word in words], cwd=cwd, check=True, capture_output=True)


def node_modules() -> Path:
    """Folder with the definitions of the operators' objects; needs node and npm."""
    folder = FOLDER / "node"
    note = folder / "packages.txt"
    wanted = "\n".join(NODE_PACKAGES)
    if not note.exists() or note.read_text(encoding="utf-8") != wanted:
        folder.mkdir(parents=True, exist_ok=True)
        _run("npm", "install", "--no-save", "--no-audit", "--no-fund", *NODE_PACKAGES, cwd=folder)
        note.write_text(wanted, encoding="utf-8")
    return folder / "node_modules"


def checkov() -> Path:
    """The Python that has it: an environment of its own, for it pins half of what Eddy uses."""
    folder = FOLDER / CHECKOV
    program = folder / "bin" / "python"
    if not program.exists():
        uv = ROOT / ".venv" / "bin" / "uv"
        _run(uv, "venv", "--quiet", "--python", sys.executable, folder)
        _run(uv, "pip", "install", "--quiet", "--python", program, CHECKOV)
    return program


def promtool() -> Path:
    """The checker of rules: the system's, or Debian's package unpacked and never started."""
    found = shutil.which("promtool")
    if found:
        return Path(found)
    folder = FOLDER / "prometheus"
    program = folder / "usr" / "bin" / "promtool"
    if not program.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _run("apt-get", "download", "prometheus", cwd=folder)
        (package,) = folder.glob("prometheus_*.deb")
        _run("dpkg-deb", "--extract", package, folder)
    return program
