"""The report on paper, through typst.

The template is fixed and reads the contents as data: a text from a store is a string there and
cannot be markup, whatever it says.
"""

import json
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

from workbench.report.glossary import GLOSSARY
from workbench.report.own_words import paragraphs
from workbench.telling.page import Contents, Figure, FirstPage, Table

HINT = "no PDF: typst is missing; pip install typst"
MOST_ROWS = 60
"""Rows of a table on paper; the page and data/ hold the rest."""


def write_pdf(contents: Contents, stamp: str, notes: tuple[str, ...], folder: Path) -> Path | None:
    """``folder/report.pdf`` with the figures of ``folder/figures``; None without typst.

    The same contents give the same file but for ``stamp``.
    """
    try:
        import typst
    except ImportError:
        return None
    target = folder / "report.pdf"
    typst.compile(  # type: ignore[type-var]
        template(),
        output=str(target),
        root=str(folder),
        sys_inputs=inputs(contents, stamp, notes, folder),
        # The fonts that typst brings along: the file is the same on every machine.
        ignore_system_fonts=True,
        timestamp=0,
    )
    return target


def template() -> bytes:
    """The layout, which reads ``inputs``."""
    return files("workbench.report").joinpath("templates", "report.typ").read_bytes()


def inputs(contents: Contents, stamp: str, notes: tuple[str, ...], folder: Path) -> dict[str, str]:
    """The contents as JSON, with the paths of the pictures below ``folder``."""
    document = {
        "title": contents.title,
        "stamp": stamp,
        "answer": contents.answer,
        "first": [_first(contents.first, folder)] if contents.first else [],
        "provenance": [*contents.provenance, *notes],
        "headline": [_table(contents.headline)] if contents.headline else [],
        "sections": [
            {
                "title": section.title,
                "bullets": section.bullets,
                "blocks": [
                    {
                        "title": block.title,
                        "sentences": block.sentences,
                        "figures": [_figure(block.figure, folder)] if block.figure else [],
                        "tables": [_table(table) for table in block.tables],
                    }
                    for block in section.blocks
                ],
            }
            for section in contents.sections
        ],
        "words": list(GLOSSARY.items()),
        "reproduce": contents.reproduce,
        "versions": _table(contents.versions),
    }
    return {"report": json.dumps(document)}


def _first(page: FirstPage, folder: Path) -> dict[str, Any]:
    return {
        "answer": page.answer,
        "basis": page.basis,
        "heading": page.heading,
        "recommendation": page.recommendation,
        "note": [
            {"marker": each.marker, "runs": [asdict(run) for run in each.runs]}
            for each in paragraphs(page.note)
        ],
        "table": _table(page.table),
        "case": [_table(page.case)] if page.case else [],
        "figure": _figure(page.figure, folder),
        "facts": [f"{name}: {value}" for name, value in page.facts],
        "assumptions": page.assumptions,
        "risks": page.risks,
    }


def _figure(figure: Figure, folder: Path) -> dict[str, Any]:
    path = folder / "figures" / f"{figure.slug}.png"
    return {
        "title": figure.title,
        "path": f"/figures/{path.name}" if path.is_file() else "",
        "ratio": figure.width / figure.height,
        "caption": " ".join(figure.caption),
    }


def _table(table: Table) -> dict[str, Any]:
    rest = len(table.rows) - MOST_ROWS
    more = f" And {rest:,} more rows in report.html." if rest > 0 else ""
    return {
        "title": table.title,
        "columns": table.columns,
        "rows": table.rows[:MOST_ROWS],
        "note": (table.note + more).strip(),
    }
