"""The report as slides: its first page, three figures and the table, for a design review.

Text is put into shapes as text: none of it is read as markup, a link or a formula.
"""

import io
import textwrap
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.report.own_words import paragraphs
from workbench.telling.page import Contents, Figure, FirstPage, Table
from workbench.telling.text import apart, unbroken

if TYPE_CHECKING:
    from pptx.presentation import Presentation

HINT = "no slides: python-pptx is missing; pip install python-pptx"
WIDTH, HEIGHT, MARGIN = 13.333, 7.5, 0.5
"""Inches: 16 to 9."""
LETTER, CELL = 0.65, 0.06
"""Of its size, how wide a letter of a table is at the mean; inches left and right of a cell's
words."""
BODY = 1.75
"""Inches from the top to what a title is about."""
FIGURES = 3
MOST_ROWS = 14
"""Rows of a table."""
LONGEST, LETTERS = 28, 100
"""Characters of a column's widest words in full, and of a line an inch wide of a point's size."""
NOTE, LINE = 330, 110
"""Characters of the author's words on the first slide, and those of a line."""
INK, MUTED, RULE = "1B2126", "5B6570", "E9ECEF"
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The date of every file inside, so that two reports of one store differ in their stamp alone."""


def write_slides(contents: Contents, stamp: str, folder: Path) -> Path | None:
    """``folder/report.pptx`` with the figures of ``folder/figures``; None without python-pptx.

    None also where the report has no first page: one that compares two stores.
    """
    try:
        import pptx
    except ImportError:
        return None
    if contents.first is None:
        return None
    deck = pptx.Presentation()
    deck.slide_width, deck.slide_height = _inches(WIDTH), _inches(HEIGHT)
    deck.core_properties.title, deck.core_properties.author = contents.title, ""
    first = contents.first
    _answer(deck, contents, first, stamp)
    _table(deck, *apart(contents.answer[0]), first.table)
    if first.case:
        _table(deck, first.case.title, "", first.case)
    for figure in figures_of(contents, first):
        _figure(deck, figure, folder)
    _conditions(deck, first)
    target = folder / "report.pptx"
    target.write_bytes(_packed(deck))
    return target


def figures_of(contents: Contents, first: FirstPage) -> list[Figure]:
    """The first page's figure and the first ones of the chapter that it is of, under what they
    show.
    """
    own = [s for s in contents.sections if s.slug == first.chapter]
    every = [block.figure for section in own for block in section.blocks if block.figure]
    more = [figure for figure in every if figure.title != first.figure.title]
    message = f"{first.recommendation[0].removesuffix('.')} ({first.basis})."
    return [replace(first.figure, message=message), *more][:FIGURES]


def _answer(deck: "Presentation", contents: Contents, first: FirstPage, stamp: str) -> None:
    slide = _slide(deck, first.answer, first.basis, 26, 0.9, 3)
    _text(slide, 0.4, 0.5, [(contents.title, 14, MUTED, False)])
    paragraphs = [(first.heading, 18, INK, True)]
    paragraphs += [(f"• {sentence}", 18, INK, False) for sentence in first.recommendation]
    paragraphs += [(text, 14, INK, False) for text in beginning(first.note)]
    _text(slide, 3.2, 3.2, paragraphs)
    facts = [f"{name}: {value}" for name, value in first.facts]
    _text(slide, 6.8, 0.5, [(" · ".join([*facts, f"written {stamp}"]), 11, MUTED, False)])


def beginning(note: str) -> list[str]:
    """The paragraphs of the author's words that a slide has room for, without their styles."""
    texts: list[str] = []
    room = NOTE
    for paragraph in paragraphs(note):
        text = " ".join(paragraph.text.split())
        if len(text) > room:
            words = textwrap.shorten(text, room, placeholder="") if room > LINE // 2 else ""
            return [*texts, f"{words} … (the rest is in report.html)".lstrip()]
        texts.append(text)
        room -= max(len(text), LINE)
    return texts


def _conditions(deck: "Presentation", first: FirstPage) -> None:
    slide = _slide(deck, "What this stands on, and what could turn it", first.basis)
    for left, name, lines in (
        (0.0, "Assumptions", first.assumptions),
        (0.5, "Risks", first.risks),
    ):
        texts = [(name, 18, INK, True), *((f"• {line}", 16, INK, False) for line in lines)]
        _text(slide, BODY, 5.0, texts, left, 0.47)


def _figure(deck: "Presentation", figure: Figure, folder: Path) -> None:
    """What it shows, the figure as wide or as high as the slide, and its caption below or beside
    it.
    """
    message, basis = apart(figure.message or figure.title)
    slide = _slide(deck, message, basis)
    path = folder / "figures" / f"{figure.slug}.png"
    caption = [(" ".join(figure.caption), 11, MUTED, False)]
    if not path.is_file():
        _text(slide, 3, 1, [("This figure is in report.html.", 16, MUTED, False)])
        _text(slide, 6.3, 1.0, caption)
        return
    picture = slide.shapes.add_picture(str(path), _inches(MARGIN), _inches(BODY))
    picture.name = figure.title
    room_w, beside = WIDTH - 2 * MARGIN, picture.width < 2 * picture.height
    room_h = HEIGHT - BODY - (0.3 if beside else 1.1)
    scale = min(_inches(room_w) / picture.width, _inches(room_h) / picture.height)
    picture.width, picture.height = int(picture.width * scale), int(picture.height * scale)
    if beside:
        left = picture.width / _inches(room_w) + 0.02
        _text(slide, BODY + 0.3, room_h - 0.3, caption, left, 1 - left)
    else:
        picture.left = (_inches(WIDTH) - picture.width) // 2
        _text(slide, BODY + picture.height / _inches(1) + 0.05, 0.9, caption)


def _table(deck: "Presentation", title: str, basis: str, table: Table) -> None:
    """The table's rows under what they say; columns are as wide as their words."""
    from pptx.util import Pt

    slide = _slide(deck, title, basis)
    lines = (table.columns, *table.rows[:MOST_ROWS])
    columns = [*zip(*lines, strict=True)]
    words = [max(len(word) for cell in column for word in cell.split(" ")) for column in columns]
    letters = [
        max(min(max(map(len, column)), LONGEST) + 2, word + 4)
        for column, word in zip(columns, words, strict=True)
    ]
    wide = [(WIDTH - 2 * MARGIN) * count / sum(letters) for count in letters]
    # No word is broken.
    fitting = min(
        72 * (inches - 2 * CELL) / (LETTER * max(word, 1))
        for inches, word in zip(wide, words, strict=True)
    )
    size = int(min(14 if len(lines) <= 9 else 11, max(fitting, 8)))
    high = min(0.55, 4.6 / len(lines))
    frame = slide.shapes.add_table(
        len(lines),
        len(table.columns),
        _inches(MARGIN),
        _inches(BODY),
        _inches(WIDTH - 2 * MARGIN),
        _inches(high * len(lines)),
    )
    grid = frame.table
    grid.horz_banding = False
    for column, inches in zip(grid.columns, wide, strict=True):
        column.width = int(_inches(inches))
    for number, row in enumerate(lines):
        for place, text in enumerate(row):
            cell = grid.cell(number, place)
            cell.text = unbroken(text)
            cell.margin_left = cell.margin_right = _inches(CELL)
            cell.fill.solid()
            cell.fill.fore_color.rgb = _colour(RULE if number == 0 else "FFFFFF")
            for paragraph in cell.text_frame.paragraphs:
                paragraph.font.size = Pt(size)
                paragraph.font.bold = number == 0 or place == 0
                paragraph.font.color.rgb = _colour(INK)
    rest = len(table.rows) + 1 - len(lines)
    note = f"{table.note} {f'{rest:,} more rows in report.html.' if rest else ''}".strip()
    _text(slide, BODY + 4.75, 0.8, [(note, 11, MUTED, False)])


def _slide(
    deck: "Presentation",
    title: str,
    basis: str = "",
    size: int = 22,
    top: float = 0.3,
    lines: int = 2,
) -> Any:
    """A slide under what it says in so many lines, and in small what that is of."""
    slide = deck.slides.add_slide(deck.slide_layouts[5])  # a title alone
    box = slide.shapes.title
    longest = lines * LETTERS * WIDTH / size
    size = size if len(title) <= longest else max(14, int(size * longest / len(title)))
    high = max(0.85, lines * size * 1.25 / 72)
    box.left, box.top = _inches(MARGIN), _inches(top)
    box.width, box.height = _inches(WIDTH - 2 * MARGIN), _inches(high)
    box.text_frame.clear()
    _fill(box.text_frame, [(title, size, INK, True)])
    if basis:
        _text(slide, top + high, 0.4, [(f"{basis}.", 11, MUTED, False)])
    return slide


def _text(
    slide: Any,
    top: float,
    height: float,
    lines: Sequence[tuple[str, int, str, bool]],
    left: float = 0.0,
    share: float = 1.0,
) -> None:
    """A box of paragraphs: text, points, colour, bold; ``left`` and ``share`` of the width."""
    room = WIDTH - 2 * MARGIN
    box = slide.shapes.add_textbox(
        _inches(MARGIN + left * room), _inches(top), _inches(share * room), _inches(height)
    )
    _fill(box.text_frame, lines)


def _fill(frame: Any, lines: Sequence[tuple[str, int, str, bool]]) -> None:
    from pptx.enum.text import MSO_ANCHOR, PP_ALIGN
    from pptx.util import Pt

    frame.word_wrap, frame.vertical_anchor = True, MSO_ANCHOR.TOP
    for number, (words, size, colour, bold) in enumerate(lines):
        paragraph = frame.paragraphs[0] if number == 0 else frame.add_paragraph()
        paragraph.text = unbroken(words)
        paragraph.alignment, paragraph.space_after = PP_ALIGN.LEFT, Pt(size / 3)
        font = paragraph.font
        font.size, font.bold, font.color.rgb = Pt(size), bold, _colour(colour)


def _inches(value: float) -> Any:
    from pptx.util import Inches

    return Inches(value)


def _colour(name: str) -> Any:
    from pptx.dml.color import RGBColor

    return RGBColor.from_string(name)


def _packed(deck: "Presentation") -> bytes:
    """The file, with one date for all that is in it."""
    from datetime import datetime

    deck.core_properties.created = deck.core_properties.modified = datetime(*EPOCH)
    loose, packed = io.BytesIO(), io.BytesIO()
    deck.save(loose)
    with (
        zipfile.ZipFile(loose) as source,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            info = zipfile.ZipInfo(name, EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            target.writestr(info, source.read(name))
    return packed.getvalue()
