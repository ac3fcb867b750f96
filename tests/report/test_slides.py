"""The slides: first page, table, three figures, what it stands on; text stays text."""

from dataclasses import replace
from pathlib import Path

import pptx
import pytest

from tests import golden
from tests.golden import HOSTILE
from tests.reference import STORE
from workbench.report.contents import contents
from workbench.report.images import browser, write_images
from workbench.report.slides import FIGURES, figures_of, write_slides
from workbench.telling.page import Contents

STAMP = "2026-11-28T00:00:00+00:00"


@pytest.fixture(scope="module")
def found() -> Contents:
    return contents(STORE, note="Ours\x07 <b>x</b> http://a.example")


def words(slide) -> str:
    return "\n".join(s.text_frame.text for s in slide.shapes if s.has_text_frame)


def test_they_say_what_the_first_page_says(found: Contents, tmp_path: Path) -> None:
    assert found.first is not None
    (tmp_path / "figures").mkdir()
    shown = figures_of(found, found.first)
    assert len(shown) == FIGURES == len({figure.slug for figure in shown})
    chromium = browser()
    assert chromium, "Debian's chromium draws them"
    write_images(shown[:1], tmp_path / "figures", chromium)
    path = write_slides(found, STAMP, tmp_path)
    assert path == tmp_path / "report.pptx"
    answer, table, *figures, ground = pptx.Presentation(str(path)).slides
    told = words(answer).replace("\u2011", "-")
    for part in (found.title, found.first.answer, *found.first.recommendation, STAMP, "<b>x</b>"):
        assert part in told
    (grid,) = [shape.table for shape in table.shapes if shape.has_table]
    held = [[cell.text.replace("\u2011", "-") for cell in row.cells] for row in grid.rows]
    assert held == [list(found.first.table.columns), *map(list, found.first.table.rows)]
    assert len(figures) == FIGURES
    assert [sum(s.shape_type == 13 for s in slide.shapes) for slide in figures] == [1, 0, 0]
    assert "This figure is in report.html." in words(figures[1])
    for slide, figure in zip(figures, shown, strict=True):
        assert " ".join(figure.caption) in words(slide).replace("\u2011", "-")
    for line in (*found.first.assumptions, *found.first.risks):
        assert line in words(ground).replace("\u2011", "-")
    for slide in (answer, table, *figures, ground):
        for shape in slide.shapes:
            assert shape.left >= 0
            assert shape.left + shape.width <= 13.34 * 914400
            assert shape.top + shape.height <= 7.51 * 914400
    # Each is under a sentence that answers, and what that is of stands below it.
    titles = [slide.shapes.title.text_frame.text for slide in (answer, table, *figures)]
    titles = [title.replace("\u2011", "-") for title in titles]
    assert titles[0] == found.first.answer
    assert titles[1].startswith("D-Attn · flash takes 1.01 s at |V| = 9,000")
    assert titles[2] == found.first.recommendation[0]
    assert titles[3].startswith("Four times the tokens take ×6.29")
    assert titles[4].startswith("D-Attn · flash ran up to |V| = 132,687")
    for slide in (answer, table, *figures):
        assert "measured on NVIDIA H100 80GB HBM3" in words(slide)
    # No text became a link, and two files of one store are equal.
    assert "hlinkClick" not in "".join(str(s.part.blob) for s in (answer, table, ground))
    before = path.read_bytes()
    write_slides(found, STAMP, tmp_path)
    assert path.read_bytes() == before


def test_hostile_names_are_text(tmp_path: Path) -> None:
    found = contents(golden.build(tmp_path / "s.db", "hostile"))
    assert found.first is not None
    path = write_slides(found, STAMP, tmp_path)
    first = pptx.Presentation(str(path)).slides[0]
    assert " ".join(HOSTILE.split())[:20] in " ".join(words(first).split())


def test_two_stores_have_no_slides(found: Contents, tmp_path: Path) -> None:
    assert write_slides(replace(found, first=None), STAMP, tmp_path) is None
    assert list(tmp_path.iterdir()) == []
