"""The first page: answer, recommendation, six rows, the author's words, the reader's case."""

from pathlib import Path
from typing import Any

import pytest

from tests import golden
from tests.reference import STORE
from workbench.commands.case import fastest
from workbench.interface import predict
from workbench.report import write_report
from workbench.report.case import Case, CaseAnswer, read_case
from workbench.report.case_table import case_table
from workbench.report.contents import contents
from workbench.report.questions.systems import MOST
from workbench.store import Store
from workbench.telling.page import Table
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.systems import entries


@pytest.fixture(scope="module")
def page():
    found = contents(STORE, case=None, note="**Ours.** <b>x</b> ![x](http://a/b.png)")
    assert found.first is not None
    return found.first


def test_it_answers_with_what_an_h100_measured(page) -> None:
    assert page.answer.startswith("D-Attn · flash is 5.23× as fast as S-Attn · eager and 1.21×")
    assert "2.60× as fast as S-Attn · cudnn at |V| = 74,000" in page.answer
    for mark in ("emulated: 1 of 32 ranks", "power-capped", "2 to 3 samples", "cold"):
        assert mark in page.basis
    assert page.recommendation[0].startswith("Take D-Attn · flash from |V| = 9,000 on")
    assert "134,687" in page.recommendation[-1]
    assert "255,771" in page.recommendation[-1]
    assert "(1,000,000 or more)" in page.recommendation[-1]
    assert page.recommendation[1].startswith("On one condition: D-Attn gives up V2V")
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
        ("weather=2", "'weather' is unknown; known: device"),
        ("frame=2", "did you mean frames"),
        ("gpus=3", "give visual=N, or images=N, frames=N or both of these"),
        ("visual=2,frames=3", "give visual=N, or"),
        ("images=0", "images=0: a whole number"),
        ("images=-4", "images=-4: a whole number"),
        ("frames=nan", "frames=nan: a whole number"),
        ("frames=1e30", "frames=1e30: a whole number"),
        ("visual=10,gpus=2000000", "gpus=2000000: a whole number from 1 to 1,000,000"),
        ("images=2000000,frames=2000000", "at most 1,000,000,000"),
        ("images=2,price=nanEUR", "a number below a billion with its currency"),
        ("images=2,price=12345678901EUR", "a number below a billion"),
        ("images=2,price=3", "with its currency"),
        ("images=2,fps=0", "fps=0: a number above 0"),
        ("images=2,resolution=9", "resolution"),
        ("images=2,model=nobody/knows", "model"),
    ],
)
def test_a_case_that_makes_no_sense_is_one_line(text: str, fault: str) -> None:
    with pytest.raises(RequestError, match=fault) as raised:
        read_case(text)
    assert "\n" not in str(raised.value)


def test_every_fault_of_a_case_is_told_once() -> None:
    with pytest.raises(RequestError) as raised:
        read_case(
            "model=no/one,images=x,gpus=0,fps=0,modle=3", lambda model, _: [f"model {model!r}"]
        )
    names = [line.split("=")[0].split(":")[0] for line in str(raised.value).split("; ")]
    assert names == [
        "case's name 'modle' is unknown",
        "did you mean model?",
        "case gpus",
        "case images",
        "case fps",
        "model 'no/one'",
    ]


def test_the_first_page_answers_the_question_that_was_asked(stores: Path) -> None:
    for question in ("will-it-fit", "kernel-choice", "systems"):
        found = contents(stores / "like_default.db", question)
        assert found.first is not None
        assert found.answer[0].startswith(found.first.answer.removesuffix("."))
        assert found.first.basis in found.answer[0]
        of = f" ({found.first.basis})"
        assert found.first.recommendation == tuple(a.replace(of, "") for a in found.answer[1:])
        assert found.first.heading == "More of the answer"


@pytest.mark.parametrize(
    ("question", "setting", "lines", "row"),
    [
        (
            "kernel-choice",
            "One decoder layer of mistral-7b-v0.3, training step",
            ["S-Attn · cudnn", "S-Attn · eager", "S-Attn · flash"],
            ("65,536", "399 ms (p)", "559 ms (p)", "–", "cudnn, 1.40× as fast as flash"),
        ),
        (
            "will-it-fit",
            "The decoder of mistral-7b-v0.3 with LM head and loss, training step",
            ["S-Attn · cudnn", "S-Attn · eager", "S-Attn · flash"],
            ("S-Attn · eager", "10,887 (e)", "10,995", "71.1 GiB (e)"),
        ),
        (
            "himix",
            "One decoder layer of mistral-7b-v0.3, training step",
            ["S-Attn · cudnn", "D-Attn · flash", "HiMix · flash"],
            ("16,384", "HiMix · flash", "1.14 TFLOP", "1.36 GiB", "4.83 ms", "n/a"),
        ),
        (
            "systems",
            "One decoder layer of mistral-7b-v0.3, training step",
            ["S-Attn · cudnn", "D-Attn · flash · fold", "HiMix · flash"],
            None,
        ),
    ],
)
def test_figure_table_and_assumptions_are_of_the_answers_subject(
    question: str, setting: str, lines: list[str], row: tuple[str, ...] | None
) -> None:
    """The H100's records: what a question is about is not what the default question is about."""
    first = contents(STORE, question).first
    assert first is not None
    assert first.assumptions[0].startswith(setting)
    assert first.figure.caption[0].startswith(setting)
    drawn = first.figure.light
    names = [trace.name for trace in drawn.data if trace.showlegend is not False]
    names += [note.text.partition("   <b>")[0] for note in drawn.layout.annotations]
    assert {*lines} <= {*names}
    assert row is None or row in first.table.rows
    assert len(first.table.rows) <= 8
    if any("(p)" in cell or "(e)" in cell for each in first.table.rows for cell in each):
        assert "In parentheses: " in first.table.note
    for sentence in first.recommendation:
        assert first.basis not in sentence


@pytest.mark.parametrize("more", [{"note": "x"}, {"case": Table("", ("",), ())}])
def test_a_report_without_a_first_page_takes_no_words_and_no_case(more: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match="question regression: has no first page"):
        contents(STORE, "regression", STORE, **more)


def answer(case: Case, system: int, status: str, seconds: float, **more: Any) -> CaseAnswer:
    return CaseAnswer(case.systems()[system][0], status, seconds, 2**30, **more)


def test_a_case_costs_its_hours_and_its_money_where_it_fits() -> None:
    case = read_case("model=llava-1.5-7b,images=16,gpus=8,steps=3_600,price=2.5EUR")
    assert case.visual == 16 * 576
    flags = ("calibrated: by n records", "beyond_calibration: |V| 9 is far", "modelled: so")
    beyond = answer(case, 0, "oom", 9.0, max_visual=None)
    base = answer(case, 1, "ok", 1.25, max_visual=28_800)
    fits = answer(case, 2, "ok", 0.5, max_visual=57_600, flags=flags)
    table = case_table(case, [beyond, base, fits])
    assert table.columns == ("", "S-Attn · eager", "S-Attn · flash", "D-Attn · flash")
    assert table.rows == (
        ("fits a card", "no, needs 1 GiB", "yes, 1 GiB", "yes, 1 GiB"),
        # No seconds and no money of what does not fit.
        ("an iteration", "–", "1.25 s", "500 ms"),
        # 0.5 s x 3,600 steps x 8 cards are 4 hours.
        ("GPU-hours for 3,600 steps", "–", "10.00", "4.00"),
        ("EUR for 3,600 steps", "–", "25.00", "10.00"),
        ("largest |V| that fits", "–", "28,800", "57,600"),
        # A minute at 1 fps has 60 images of 576 tokens.
        ("minutes of video that fit", "–", "0.8", "1.7"),
    )
    assert table.title == (
        "Your case, predicted: with 16 images of 1344x896, 9,216 visual tokens, D-Attn · flash"
        " takes 500 ms an iteration, 2.50× as fast as S-Attn · flash; 3,600 steps take 4.00"
        " GPU-hours in place of 10.00, 10.00 EUR in place of 25.00."
    )
    assert "Fitted to measurements: by n records. Extrapolated: |V| 9 is far." in table.note
    assert "modelled" not in table.note
    unpriced = case_table(read_case("visual=100"), [base, fits])
    assert not any("EUR" in row[0] for row in unpriced.rows)
    assert "EUR" not in unpriced.title


def test_a_case_says_who_fits_where_not_all_do() -> None:
    case = read_case("visual=100k,gpus=1")
    base = answer(case, 1, "oom", 4.0, max_visual=60_000)
    own = answer(case, 3, "ok", 2.0, max_visual=200_000)
    assert case_table(case, [base, own]).title.endswith(
        "with 100,000 visual tokens, D-Attn · flash · chunk 8,192 fits, 2 s an iteration;"
        " S-Attn · flash takes 60,000 visual tokens at most."
    )
    beyond = answer(case, 3, "oom", 2.0, max_visual=90_000, flags=("calibrated: x",))
    table = case_table(case, [base, beyond])
    assert table.title.endswith(
        "nothing fits h100-80gb; D-Attn · flash · chunk 8,192 takes most, 90,000 visual tokens."
    )
    assert "Calibrated" not in table.note
    # What does not fit has no seconds and no money: rows of nothing are left out.
    assert [row[0] for row in table.rows] == [
        "fits a card",
        "largest |V| that fits",
        "minutes of video that fit",
    ]
    none = answer(case, 0, "unsupported", 0.0, max_visual=None)
    assert case_table(case, [none]).title.endswith("nothing fits h100-80gb.")
    assert case_table(case, [none]).rows[0] == ("fits a card", "cannot run")


def test_a_case_has_images_beside_its_video() -> None:
    still, video, both = (
        read_case(f"model=llava-1.5-7b,{words}")
        for words in ("images=4", "frames=60", "images=4,frames=60")
    )
    assert both.visual == still.visual + video.visual
    assert both.beside == still.visual == 4 * 576
    assert both.shown == "4 images and 60 frames of 1344x896, 36,864 visual tokens"
    answers = [answer(both, system, "ok", 1.0, max_visual=36_864) for system in (1, 2)]
    assert case_table(both, answers).rows[-1] == ("minutes of video that fit", "1.0", "1.0")


def test_the_cells_of_a_case_are_training_steps_under_every_fused_kernel() -> None:
    (first, *_), fused, *_ = read_case("visual=100,gpus=1").systems()
    assert first == make_cell(
        scope="decoder",
        kernel="eager",
        num_visual=100,
        num_text=400,
        checkpoint=True,
        logits="text",
        **{"pass": "train"},
    )
    assert [cell.kernel for cell in fused] == ["flash", "cudnn", "flex"]


def test_a_case_takes_the_kernel_that_is_predicted_to_be_fastest() -> None:
    """On an H100 that is cuDNN for S-Attn: flash alone would flatter D-Attn."""
    case = read_case("visual=60_000,gpus=32")
    cells = case.systems()[1]
    chosen = fastest(cells, case.device)
    assert chosen.cell.kernel == "cudnn"
    for cell in cells:
        assert chosen.metrics["time_s"] <= predict(cell, case.device).metrics["time_s"]
    # What does not fit gives way to what does.
    eager = case.systems()[0][0]
    assert fastest([eager, cells[0]], case.device).cell == cells[0]


def test_of_many_systems_the_first_page_shows_the_quickest(tmp_path: Path) -> None:
    every = [name for name in entries()["attention"] if name != "s_attn"]
    made = [
        golden.record("predicted", "h100-80gb", attention=name, num_visual=256)
        for name in ("s_attn", *every)
    ]
    with Store.open(tmp_path / "s.db", mode="w") as store:
        store.add_many(store.begin_run("s", {}, golden.LAPTOP), made)
    found = contents(tmp_path / "s.db", "systems")
    assert found.first is not None
    assert len(found.first.table.rows) == MOST < len(made)
    assert f"{MOST} of {len(made)} systems." in found.first.table.note
    assert found.headline is not None
    assert len(found.headline.rows) == len(made)
