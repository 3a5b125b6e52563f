"""Options that several subcommands take."""

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

SettingsOption: TypeAlias = Annotated[
    Path, typer.Option("--settings", "-s", help="Settings file (YAML); `driftline demo` writes one as an example.")
]
ReadyFile: TypeAlias = Annotated[
    Path | None, typer.Option(help="Written when ready: a JSON object with the process id and the ports.")
]
DATE_FORMATS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S"]
