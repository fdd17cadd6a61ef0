"""Asks for known weaknesses of what is locked: ``python -m tests.audit_dependencies LOCK...``.

pip-audit calls a package that its index knows nothing about "skipped", and is content when all
are. Here that is said aloud: a finding fails, an index without advisories does not, and no
silence passes for a clean bill.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

LIMIT_S = 120


def judge(said: str) -> tuple[int, str]:
    """Exit code and a sentence for the JSON that pip-audit wrote."""
    try:
        report: dict[str, Any] = json.loads(said)
    except json.JSONDecodeError:
        return 0, "advisories not reachable: skipped"
    packages = report["dependencies"]
    found = [
        f"{p['name']} {p['version']}: {weakness['id']}"
        for p in packages
        for weakness in p.get("vulns", ())
    ]
    n_skipped = sum("skip_reason" in p for p in packages)
    if found:
        return 1, "known weaknesses: " + "; ".join(found)
    if n_skipped == len(packages):
        return 0, "advisories not reachable: skipped"
    return 0, f"no known weakness in {len(packages) - n_skipped} packages, {n_skipped} not asked"


def main(locks: list[str]) -> int:
    """Ask about every lock file; 1 if anything is known."""
    worst = 0
    for lock in locks:
        command = [sys.executable, "-m", "pip_audit", "-r", lock, "--disable-pip"]
        command += ["--require-hashes", "--format", "json", "--progress-spinner", "off"]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=LIMIT_S, check=False
            )
            code, sentence = judge(done.stdout)
        except subprocess.TimeoutExpired:
            code, sentence = judge("")
        print(f"{lock}: {sentence}")
        worst = max(worst, code)
    return worst


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
