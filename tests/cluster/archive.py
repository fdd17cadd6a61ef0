#!/usr/bin/env python3
"""An OCI archive of a few files, with no container program: ``archive.py --help``.

``ctr -a DIR/run/containerd.sock -n k8s.io images import FILE`` takes it.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import platform
import tarfile
from pathlib import Path

TYPE = "application/vnd.oci.image."
PROCESSORS = {"x86_64": "amd64", "aarch64": "arm64"}


def layer(pairs: list[str]) -> bytes:
    """Files as an archive that is the same every time; a pair is SOURCE:TARGET."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for pair in pairs:
            source, target = pair.rsplit(":", 1)
            member = archive.gettarinfo(source, target.lstrip("/"))
            member.uid = member.gid = member.mtime = 0
            member.uname = member.gname = ""
            with Path(source).open("rb") as file:
                archive.addfile(member, file)
    return buffer.getvalue()


def write(out: Path, name: str, files: list[str], entrypoint: list[str], user: str) -> None:
    """The archive: one layer, its configuration, the manifest, the index."""
    blobs: dict[str, bytes] = {}

    def blob(data: bytes, kind: str) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = data
        return {"mediaType": TYPE + kind, "digest": f"sha256:{digest}", "size": len(data)}

    rootfs = blob(layer(files), "layer.v1.tar")
    config = {
        "architecture": PROCESSORS.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {"Entrypoint": entrypoint, "User": user},
        "rootfs": {"type": "layers", "diff_ids": [rootfs["digest"]]},
    }
    manifest: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": TYPE + "manifest.v1+json",
        "config": blob(json.dumps(config).encode(), "config.v1+json"),
        "layers": [rootfs],
    }
    listed = blob(json.dumps(manifest).encode(), "manifest.v1+json")
    listed["annotations"] = {"io.containerd.image.name": name}
    blobs["oci-layout"] = b'{"imageLayoutVersion":"1.0.0"}'
    blobs["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [listed]}).encode()
    with tarfile.open(out, "w") as archive:
        for path, data in blobs.items():
            member = tarfile.TarInfo(path)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", dest="out", type=Path, required=True)
    parser.add_argument("-n", dest="name", required=True)
    parser.add_argument("--file", action="append", default=[], metavar="SOURCE:TARGET")
    parser.add_argument("--entrypoint", type=str.split, default=[])
    parser.add_argument("--user", default="")
    given = parser.parse_args()
    write(given.out, given.name, given.file, given.entrypoint, given.user)


if __name__ == "__main__":
    main()
