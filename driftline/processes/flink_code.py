"""What a job on Flink is made of: driftline's own Python, the Java class that it needs, and the connector."""

import hashlib
import os
import shutil
import subprocess
import zipfile
from pathlib import Path

from driftline.errors import RunError
from driftline.processes.flink import CODE, JAVA_VERSION, VERSION, compiler, pyflink

PACKAGES = ("contracts", "stream")  # that the job imports


def records_jar(home: Path) -> Path:
    """Compile `Records.java`, unless that was done.

    Raises:
        RunError: it cannot be compiled.

    """
    source = CODE / "Records.java"
    target = home / VERSION / f"driftline-records-{hashlib.sha256(source.read_bytes()).hexdigest()[:12]}.jar"
    if target.exists():
        return target
    scratch = target.with_suffix(f".{os.getpid()}")
    scratch.mkdir()
    try:
        path = f"{pyflink(home) / 'lib'}/*:{home / VERSION / 'jars'}/*"
        done = subprocess.run(
            [compiler(), "--release", str(JAVA_VERSION), "-proc:none", "-cp", path, "-d", str(scratch), str(source)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RunError(f"Records.java could not be compiled.\n{done.stderr.strip()}")
        _zip(scratch / "all.jar", [(each, each.relative_to(scratch)) for each in scratch.rglob("*.class")])
        (scratch / "all.jar").replace(target)
    finally:
        shutil.rmtree(scratch)
    return target


def code_zip(directory: Path) -> Path:
    """The Python that the job imports, as Flink hands it to its workers."""
    root = CODE.parents[1]
    files = [each for package in PACKAGES for each in sorted((root / package).rglob("*.py"))]
    digest = hashlib.sha256(b"".join(each.read_bytes() for each in files)).hexdigest()[:12]
    target = directory / f"driftline-{digest}.zip"
    if not target.exists():
        scratch = target.with_suffix(f".{os.getpid()}")
        _zip(scratch, [(each, each.relative_to(root)) for each in files])
        scratch.replace(target)
    return target


def jars(home: Path) -> list[Path]:
    """What a job needs beside Flink's own: the connector, and our class."""
    return [*sorted((home / VERSION / "jars").glob("*.jar")), records_jar(home)]


def _zip(target: Path, files: list[tuple[Path, Path]]) -> None:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, name in files:
            archive.write(path, str(name))
