"""The author's own words: Markdown as paragraphs of plain runs, for every kind of file.

No tag, link or picture in them is one: a run is text, and whoever writes it escapes it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markdown_it import MarkdownIt
from markdown_it.token import Token

from workbench.telling.text import markdown


@dataclass(frozen=True)
class Run:
    """Text in one style."""

    text: str
    bold: bool = False
    italic: bool = False
    code: bool = False


@dataclass(frozen=True)
class Paragraph:
    """Runs in a row; ``marker`` stands before an item of a list."""

    runs: tuple[Run, ...]
    marker: str = ""

    @property
    def text(self) -> str:
        """Its words, with the marker."""
        words = "".join(run.text for run in self.runs)
        return f"{self.marker} {words}" if self.marker else words


def reader() -> MarkdownIt:
    """CommonMark with tables, without tags of its own and without links or pictures to load."""
    rules = MarkdownIt("commonmark", {"html": False}).enable("table")
    return rules.disable(["image", "link", "autolink"])


def paragraphs(text: str) -> list[Paragraph]:
    """The paragraphs of a note; a row of a table is one, with bars between its cells."""
    paragraphs: list[Paragraph] = []
    row: list[Run] | None = None
    marker, bold = "", False
    for token in reader().parse(text):
        if token.type == "list_item_open":
            marker = f"{token.info}{token.markup}" if token.info else "•"
        elif token.type in ("heading_open", "th_open", "heading_close", "th_close"):
            bold = token.nesting > 0
        elif token.type == "tr_open":
            row = []
        elif token.type == "tr_close":
            paragraphs.append(Paragraph(tuple(row or ())))
            row = None
        elif token.type in ("inline", "fence", "code_block"):
            runs = list(_runs(token, bold))
            if row is not None:
                row += [*([Run(" | ")] if row else []), *runs]
            else:
                paragraphs.append(Paragraph(tuple(runs), marker))
                marker = ""
    return paragraphs


def _runs(token: Token, bold: bool) -> Iterator[Run]:
    """The runs of a token with text in it."""
    if token.children is None:
        yield Run(token.content.rstrip("\n"), code=True)
    strong, italic = 0, 0
    for child in token.children or []:
        if child.type.startswith("strong_"):
            strong += child.nesting
        elif child.type.startswith("em_"):
            italic += child.nesting
        else:
            text = " " if child.type in ("softbreak", "hardbreak") else child.content
            yield Run(text, bold or strong > 0, italic > 0, child.type == "code_inline")


def as_markdown(note: Sequence[Paragraph]) -> str:
    """The paragraphs as Markdown that no renderer takes for HTML, a link or a picture."""
    return "\n\n".join(_line(paragraph) for paragraph in note)


def _line(paragraph: Paragraph) -> str:
    words = "".join(_styled(run) for run in paragraph.runs)
    if not paragraph.marker:
        return words
    return f"{'-' if paragraph.marker == '•' else paragraph.marker} {words}"


def _styled(run: Run) -> str:
    """A run between its marks; spaces at its ends stand outside of them."""
    inner = run.text.strip()
    mark = "**" * run.bold + "*" * run.italic
    lead = run.text[: len(run.text) - len(run.text.lstrip())]
    trail = run.text[len(run.text.rstrip()) :] if inner else ""
    return f"{lead}{mark}{markdown(inner)}{mark[::-1]}{trail}" if inner else run.text
