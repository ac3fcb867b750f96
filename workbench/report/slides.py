"""The report as slides: its first page, three figures and the table, for a design review.

Text is put into shapes as text: none of it is read as markup, a link or a formula.
"""

import io
import textwrap
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.report.own_words import paragraphs
from workbench.telling.page import Contents, Figure, FirstPage, Table
from workbench.telling.text import unbroken

if TYPE_CHECKING:
    from pptx.presentation import Presentation

HINT = "no slides: python-pptx is missing; pip install python-pptx"
WIDTH, HEIGHT, MARGIN = 13.333, 7.5, 0.5
"""Inches: 16 to 9."""
FIGURES = 3
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
    _answer(deck, contents, contents.first, stamp)
    for table in (contents.first.table, *([contents.first.case] if contents.first.case else [])):
        _table(deck, table.title or contents.first.basis, table)
    for figure in figures_of(contents, contents.first):
        _figure(deck, figure, folder)
    _conditions(deck, contents.first)
    target = folder / "report.pptx"
    target.write_bytes(_packed(deck))
    return target


def figures_of(contents: Contents, first: FirstPage) -> list[Figure]:
    """The first page's figure and the first ones of the chapter that it is of."""
    own = [s for s in contents.sections if s.slug == first.chapter]
    more = [block.figure for section in own for block in section.blocks if block.figure]
    return [first.figure, *more][:FIGURES]


def _answer(deck: "Presentation", contents: Contents, first: FirstPage, stamp: str) -> None:
    slide = _slide(deck, contents.title)
    basis = f"{first.basis}." if first.basis else ""
    _text(slide, 1.25, 1.6, [(first.answer, 24, INK, True), (basis, 11, MUTED, False)])
    paragraphs = [(first.heading, 16, INK, True)]
    paragraphs += [(f"• {sentence}", 16, INK, False) for sentence in first.recommendation]
    paragraphs += [(text, 14, INK, False) for text in beginning(first.note)]
    _text(slide, 3.6, 2.4, paragraphs)
    facts = [f"{name}: {value}" for name, value in first.facts]
    _text(slide, 6.5, 0.7, [(" · ".join([*facts, f"written {stamp}"]), 10, MUTED, False)])


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
    slide = _slide(deck, "What it stands on")
    for left, name, lines in (
        (0.0, "Assumptions", first.assumptions),
        (0.5, "Risks", first.risks),
    ):
        texts = [(name, 16, INK, True), *((f"• {line}", 13, INK, False) for line in lines)]
        _text(slide, 1.3, 5.5, texts, left, 0.5)


def _figure(deck: "Presentation", figure: Figure, folder: Path) -> None:
    slide = _slide(deck, figure.title)
    path = folder / "figures" / f"{figure.slug}.png"
    room_w, room_h = WIDTH - 2 * MARGIN, 4.9
    if path.is_file():
        picture = slide.shapes.add_picture(str(path), 0, 0)
        scale = min(_inches(room_w) / picture.width, _inches(room_h) / picture.height)
        picture.width, picture.height = int(picture.width * scale), int(picture.height * scale)
        picture.left = (_inches(WIDTH) - picture.width) // 2
        picture.top = _inches(1.2)
        picture.name = figure.title
    else:
        _text(slide, 3, 1, [("This figure is in report.html.", 16, MUTED, False)])
    _text(slide, 6.25, 1.1, [(" ".join(figure.caption), 9, MUTED, False)])


def _table(deck: "Presentation", title: str, table: Table) -> None:
    from pptx.util import Pt

    slide = _slide(deck, title, 16)
    rows, columns = len(table.rows) + 1, len(table.columns)
    frame = slide.shapes.add_table(
        rows, columns, _inches(MARGIN), _inches(1.3), _inches(WIDTH - 2 * MARGIN), _inches(3.6)
    )
    grid = frame.table
    grid.horz_banding = False
    for number, row in enumerate((table.columns, *table.rows)):
        for place, words in enumerate(row):
            cell = grid.cell(number, place)
            cell.text = unbroken(words)
            cell.fill.solid()
            cell.fill.fore_color.rgb = _colour(RULE if number == 0 else "FFFFFF")
            for paragraph in cell.text_frame.paragraphs:
                paragraph.font.size = Pt(13)
                paragraph.font.bold = number == 0 or place == 0
                paragraph.font.color.rgb = _colour(INK)
    if table.note:
        _text(slide, 6.2, 1.0, [(table.note, 10, MUTED, False)])


def _slide(deck: "Presentation", title: str, size: int = 20) -> Any:
    slide = deck.slides.add_slide(deck.slide_layouts[5])  # a title alone
    box = slide.shapes.title
    box.left, box.top = _inches(MARGIN), _inches(0.35)
    box.width, box.height = _inches(WIDTH - 2 * MARGIN), _inches(0.8)
    box.text_frame.clear()
    _fill(box.text_frame, [(title, size, MUTED, False)])
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
