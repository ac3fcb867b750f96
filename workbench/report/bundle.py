"""The data behind a report, and how to make it again."""

from pathlib import Path

from workbench.store.export import export
from workbench.telling.page import Contents, Table
from workbench.telling.text import markdown

NOTE = "note.md"
"""The file of the author's own words."""


def write_bundle(contents: Contents, folder: Path) -> tuple[list[Path], list[str]]:
    """``data/``: the export of every store, the sweeps as YAML, and the author's own words.

    Returns the files and what was left out, in lines.
    """
    files: list[Path] = []
    notes: list[str] = []
    for number, path in enumerate(contents.stores):
        # The earlier store of a comparison has a folder of its own.
        target = folder / "earlier" if number else folder
        exported = export(path, target, known=None if number else contents.records)
        files += exported.files
        notes += exported.notes
    for name, body in contents.specs.items():
        (folder / name).write_text(body, encoding="utf-8")
        files.append(folder / name)
    if contents.first is not None and contents.first.note:
        (folder / NOTE).write_text(contents.first.note, encoding="utf-8")
        files.append(folder / NOTE)
    return files, notes


def reproduce_text(contents: Contents) -> str:
    """``REPRODUCE.md``: commands, versions and commit of every run."""
    lines = ["# How to make this report again", ""]
    for what, command in contents.reproduce:
        lines += [f"To {what}:", "", "```", command, "```", ""]
    lines += [
        "Counts and bytes are then equal; seconds are as near as another hour on that machine"
        " brings them.",
        "",
        "## What it was made with",
        "",
        *_table(contents.versions),
        "",
        "`data/` holds what the report was computed from: `records`, `metrics`, `samples` and"
        " `notes` as CSV and Parquet and `details.jsonl`, joined by run, key, source and device;"
        " `environment.json`; and the sweeps as they were run.",
        "",
    ]
    return "\n".join(lines)


def _table(table: Table) -> list[str]:
    def line(cells: tuple[str, ...]) -> str:
        return "| " + " | ".join(markdown(cell) for cell in cells) + " |"

    rule = "|" + "---|" * len(table.columns)
    return [line(table.columns), rule, *(line(row) for row in table.rows)]
