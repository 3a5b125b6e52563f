"""Which extra of the package brings what a subcommand needs; the base install has the client alone."""

from collections.abc import Sequence

OURS = ("abtest", "contracts", "driftline", "evaluation", "feature_repo", "serving", "stream", "trainer", "world")
EXTRA_OF = {
    "archive": "stream",
    "catalogue": "stream",
    "deadletters": "worker",
    "experiment": "abtest",
    "flink": "demo",
    "import": "stream",
    "init": "stream",
    "lab": "lab",
    "serve": "serving",
    "snapshots": "serving",
    "stream": "stream",
    "trainer": "trainer",
}


def sentence(arguments: Sequence[str], missing: str) -> str:
    """What to install for the subcommand in `arguments`, where the module `missing` is not there.

    >>> sentence(["serve", "-s", "settings.yaml"], "faiss")
    "`driftline serve` needs faiss, which is not installed; pip install 'driftline[serving]' brings it."
    """
    command = next((argument for argument in arguments if not argument.startswith("-")), "")
    shown, extra = f"driftline {command}".strip(), EXTRA_OF.get(command, "all")
    return f"`{shown}` needs {missing}, which is not installed; pip install 'driftline[{extra}]' brings it."
