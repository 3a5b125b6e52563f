"""`docs/reproduction.md` and its pictures, from stored results alone: what was not run is not in them.

    python -m evaluation.reproduction --results docs/results --out docs

What a person has to say about a section stands in `reproduction.notes.md` beside the page, under `## KEY`, KEY being
`intro` or the key of a section in `evaluation.sections`.
"""

import argparse
import sys
from pathlib import Path

from evaluation.markdown import NotesError, page, read_notes
from evaluation.results import ResultError, read_all
from evaluation.sections import Archive, sections

TITLE = "Reproduction"
INTRO = """\
T2Diff (Wang et al., WWW '25, [doi 10.1145/3696410.3714829](https://doi.org/10.1145/3696410.3714829)) and its rivals,
measured again. This page is written by `make tables` from the files in [results](results), which hold the rank of every
test query; what was not run is named, never filled in.

`t2diff-paper` is the paper's model to the letter, `t2diff` is ours, and `t2diff-without-guess` is ours without the
guess at the next behaviour. Figures are means over queries and seeds, in brackets a 95 % bootstrap interval over users;
"seeds ±" is the standard deviation between seeds. The test set never picks an epoch. A run with a budget in seconds
repeats only as far as its machine is as fast."""

NOTES = "reproduction.notes.md"


def main(arguments: list[str] | None = None) -> int:
    """Write the page and its pictures."""
    parser = argparse.ArgumentParser(prog="python -m evaluation.reproduction", description="Write the reproduction.")
    parser.add_argument("--results", type=Path, required=True, help="folder that evaluation.grid has filled")
    parser.add_argument("--out", type=Path, required=True, help="where reproduction.md and pictures/ go")
    options = parser.parse_args(arguments)
    try:
        archive = Archive(read_all(options.results))
        written = sections(archive)
        notes = read_notes(options.out / NOTES, {s.key for s in written})
    except (ResultError, NotesError, ValueError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    (options.out / "pictures").mkdir(parents=True, exist_ok=True)
    for section in written:
        if section.draw:
            section.draw(options.out / "pictures" / section.picture)
    (options.out / "reproduction.md").write_text(page(TITLE, INTRO, written, notes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
