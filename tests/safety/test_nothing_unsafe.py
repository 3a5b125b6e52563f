"""No module reads a file in a way that can run what is in it. Ruff's rules do not see all of these."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("abtest", "contracts", "driftline", "evaluation", "feature_repo", "serving", "stream", "trainer", "world")
ALSO = ("benchmarks", "examples")
RUN_WHAT_THEY_READ = {"_pickle", "cloudpickle", "dill", "joblib", "jsonpickle", "marshal", "pickle", "shelve"}
RUN = {"eval", "exec", "compile", "__import__", "builtins.eval", "builtins.exec"}
RUN_BY_METHOD = ("yaml.unsafe_load", "yaml.full_load", "to_pickle", "read_pickle", "torch.jit.load")
SAFE_LOADERS = {"SafeLoader", "_Loader"}  # the latter is contracts.config.yaml_file's, a SafeLoader


def unsafe(source: str) -> list[str]:
    """What in a module's source is unsafe, by its lines.

    >>> unsafe("import pickle")
    ['1: imports pickle']
    """
    return [f"{line}: {what}" for line, what in _unsafe(ast.parse(source))]


def _unsafe(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from (
                (node.lineno, f"imports {name}") for name in names if name.partition(".")[0] in RUN_WHAT_THEY_READ
            )
        elif isinstance(node, ast.Call) and (what := _unsafe_call(node)):
            yield node.lineno, what


def _unsafe_call(node: ast.Call) -> str:
    called, given = ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}
    if called in RUN or called.endswith(RUN_BY_METHOD):
        return f"calls {called}"
    if called.endswith("torch.load") and given.get("weights_only") != "True":
        return "calls torch.load without weights_only=True"
    if called in {"np.load", "numpy.load"} and given.get("allow_pickle") != "False":
        return "calls numpy.load without allow_pickle=False"
    if called.endswith(("yaml.load", "yaml.load_all")):
        loaders = [ast.unparse(each) for each in node.args[1:]] + [given.get("Loader", "")]
        if not SAFE_LOADERS & {loader.rpartition(".")[2] for loader in loaders}:
            return f"calls {called} without a safe loader"
    return ""


def test_no_module_runs_what_it_reads() -> None:
    files = [file for room in (*ROOMS, *ALSO) for file in (ROOT / room).rglob("*.py")]
    assert len(files) > 300
    found = {str(file.relative_to(ROOT)): unsafe(file.read_text()) for file in files}
    assert {file: lines for file, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from pickle import loads", ["1: imports pickle"]),
        ("import os\nimport dill as d", ["2: imports dill"]),
        ("import torch\ntorch.load(f)", ["2: calls torch.load without weights_only=True"]),
        ("torch.load(f, weights_only=False)", ["1: calls torch.load without weights_only=True"]),
        ("torch.load(f, weights_only=True)", []),
        ("np.load(f)", ["1: calls numpy.load without allow_pickle=False"]),
        ("np.load(f, allow_pickle=False)", []),
        ("yaml.load(f)", ["1: calls yaml.load without a safe loader"]),
        ("yaml.load(f, yaml.Loader)", ["1: calls yaml.load without a safe loader"]),
        ("yaml.load(f, Loader=yaml.SafeLoader)", []),
        ("yaml.safe_load(f)", []),
        ("eval(text)", ["1: calls eval"]),
        ("model.eval()", []),
        ("pd.read_pickle(f)", ["1: calls pd.read_pickle"]),
    ],
)
def test_each_way_is_found(source: str, expected: list[str]) -> None:
    assert unsafe(source) == expected
