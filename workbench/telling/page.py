"""What a report is made of: plain strings and figures, which the templates lay out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import plotly.graph_objects as go

from workbench.store import RecordId
from workbench.vocabulary.record import Record


@dataclass(frozen=True)
class Table:
    """A titled table of plain strings."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class Figure:
    """A drawing in both themes, and what it shows in words."""

    slug: str
    """Its file's name without the ending, and its place in the page: unique in a report."""
    title: str
    light: go.Figure
    dark: go.Figure
    """The same for a reader whose screen is dark."""
    caption: tuple[str, ...]
    message: str = ""
    """What it shows: a sentence, and what that is of in parentheses at its end."""
    width: int = 1200
    """Pixels of its file: the fewer, the larger its words beside the same panels."""

    @property
    def height(self) -> int:
        """Pixels, as the figure asks for."""
        return int(self.light.layout.height or 480)


@dataclass(frozen=True)
class Block:
    """One aspect of a subject. Without a figure and a table its sentences say what is missing."""

    title: str
    sentences: tuple[str, ...] = ()
    figure: Figure | None = None
    tables: tuple[Table, ...] = ()


@dataclass(frozen=True)
class Section:
    """A chapter; ``slug`` is its place in the page."""

    title: str
    slug: str
    blocks: tuple[Block, ...]
    bullets: tuple[str, ...] = ()
    """What it says, a sentence each."""


@dataclass(frozen=True)
class FirstPage:
    """What a reader needs who reads one page."""

    answer: str
    basis: str
    """What the answer is of: subject, place, marks."""
    recommendation: tuple[str, ...]
    """Under ``heading``: what to do, or what else answers the question."""
    table: Table
    figure: Figure
    facts: tuple[tuple[str, str], ...]
    """Hardware, software, date: name and value."""
    assumptions: tuple[str, ...]
    risks: tuple[str, ...]
    note: str = ""
    """The author's own words, Markdown."""
    case: Table | None = None
    """The reader's own case."""
    chapter: str = ""
    """The slug of the chapter that it is of."""
    heading: str = "What to do"


@dataclass(frozen=True)
class Contents:
    """A whole report, but for its time stamp."""

    question: str
    """The name of the question."""
    title: str
    answer: tuple[str, str, str]
    provenance: tuple[str, ...]
    """What the store holds and what it lacks."""
    headline: Table | None
    sections: tuple[Section, ...]
    method: str
    """The method page, Markdown."""
    reproduce: tuple[tuple[str, str], ...]
    """(what it does, command), in the order in which to run them."""
    versions: Table
    specs: Mapping[str, str] = field(default_factory=dict)
    """File name to YAML: the sweeps as they were run."""
    stores: tuple[Path, ...] = ()
    """The stores that the report reads, the reported one first."""
    first: FirstPage | None = None
    """The page in front; None where the question is about two stores."""
    records: Mapping[RecordId, Record] = field(default_factory=dict, repr=False, compare=False)
    """Those of the reported store that were read whole."""

    @property
    def figures(self) -> tuple[Figure, ...]:
        """Every figure, in the order of the page."""
        blocks = [block for section in self.sections for block in section.blocks]
        front = [self.first.figure] if self.first is not None else []
        return (*front, *(block.figure for block in blocks if block.figure is not None))
