"""The first page: answer, recommendation, six rows, the author's words, the reader's case."""

from pathlib import Path

import pytest

from tests.reference import STORE
from workbench.report import write_report
from workbench.report.case import CaseAnswer, case_table, read_case
from workbench.report.contents import contents
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError


@pytest.fixture(scope="module")
def page():
    found = contents(STORE, case=None, note="**Ours.** <b>x</b> ![x](http://a/b.png)")
    assert found.first is not None
    return found.first


def test_it_answers_with_what_an_h100_measured(page) -> None:
    assert page.answer.startswith("D-Attn · flash is 5.23× as fast as S-Attn · eager and 1.21×")
    assert "2.60× as fast as S-Attn · cudnn, the fastest fused at |V| = 74,000" in page.answer
    for mark in ("emulated: 1 of 32 ranks", "power-capped", "2 to 3 samples", "cold"):
        assert mark in page.basis
    assert page.recommendation[0].startswith("Take D-Attn · flash from |V| = 9,000 on")
    assert "134,687" in page.recommendation[-1]
    assert "255,771" in page.recommendation[-1]
    assert ("Hardware", "NVIDIA H100 80GB HBM3") in page.facts
    assert ("Date", "2026-11-28") in page.facts
    assert any("quality is not measured" in risk for risk in page.risks)


def test_its_table_has_six_rows_with_their_marks(page) -> None:
    assert page.table.columns == (
        "",
        "S-Attn · eager",
        "S-Attn · cudnn",
        "D-Attn · flash",
        "D-Attn · flash · chunk 8,192",
    )
    rows = {row[0]: row[1:] for row in page.table.rows}
    assert len(rows) == 6
    assert rows["largest |V| that fits"] == (
        "10,887 (e)",
        "74,000 or more (e)",
        "132,687 (e)",
        "255,771 (e)",
    )
    assert rows["an iteration, |V| = 9,000"] == (
        "5.27 s (e, p, 3)",
        "1.22 s (e, p, 3)",
        "1.01 s (e, p, 3)",
        "1.31 s (e, p, 3)",
    )
    assert rows["an iteration, |V| = 74,000"][:2] == ("out of memory", "20 s (e, c, 2)")
    assert rows["time for 4× the tokens"][1] == "×6.29 (9,000 to 74,000) (e, p, 3, c, 2)"
    assert rows["MFU by allowed pairs, |V| = 74,000"][1] == "38 % (60 % dense) (e, c, 2)"


def test_a_report_has_it_in_front_and_stays_small(tmp_path: Path, page) -> None:
    files = write_report(STORE, tmp_path, static_images=False, note=page.note)
    text = files.html.read_text(encoding="utf-8")
    assert len(text.encode()) < 2.5e6
    assert text.index("5.23×") < text.index("Appendix") < text.index("Fitted terms")
    assert "<strong>Ours.</strong>" in text
    # An author's words load nothing, and bring no tags.
    assert "<b>x</b>" not in text
    assert 'src="http' not in text
    assert files.markdown.read_text(encoding="utf-8").count("## Appendix") == 1


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("images=2,images=3", "images: is given twice"),
        ("images", "write name=value"),
        ("weather=2", "choose model"),
        ("gpus=3", "give one of visual=N, images=N and frames=N"),
        ("images=2,frames=3", "give one of"),
        ("images=0", "images=0: a whole number"),
        ("images=2,price=3", "a number with its currency"),
        ("images=2,fps=0", "fps=0: a number above 0"),
        ("images=2,resolution=9", "resolution"),
        ("images=2,model=nobody/knows", "model"),
    ],
)
def test_a_case_that_makes_no_sense_is_one_line(text: str, fault: str) -> None:
    with pytest.raises(RequestError, match=fault) as raised:
        read_case(text)
    assert "\n" not in str(raised.value)


def test_a_case_costs_its_hours_and_its_money_where_it_fits() -> None:
    case = read_case("model=llava-1.5-7b,images=16,gpus=8,steps=3600,price=2.5EUR")
    assert case.visual == 16 * 576
    cells = case.cells()
    assert {cell.world_size for cell in cells} == {8}
    fits = CaseAnswer(cells[2], "ok", 0.5, 2**30, 57_600, ("calibrated: by n records",))
    beyond = CaseAnswer(cells[0], "oom", 9.0, 2**40, None)
    table = case_table(case, [beyond, fits])
    assert table.columns[4] == "EUR for 3,600 steps"
    # No seconds and no money of what does not fit.
    assert table.rows[0] == ("S-Attn · eager", "no, needs 1 TiB", "–", "–", "–", "–", "–")
    # 0.5 s x 3,600 steps x 8 cards are 4 hours; a minute at 1 fps has 60 images of 576 tokens.
    assert table.rows[1] == (
        "D-Attn · sdpa",
        "yes, 1 GiB",
        "500 ms",
        "4.00",
        "10.00",
        "57,600",
        "1.7",
    )
    assert "calibrated: by n records." in table.note
    unpriced = case_table(read_case("visual=100"), [fits])
    assert not any("EUR" in column for column in unpriced.columns)


def test_the_cells_of_a_case_are_training_steps() -> None:
    (first, *_) = read_case("visual=100,gpus=1").cells()
    assert first == make_cell(
        scope="decoder",
        kernel="eager",
        num_visual=100,
        num_text=400,
        checkpoint=True,
        logits="text",
        **{"pass": "train"},
    )
