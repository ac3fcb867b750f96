"""Thresholds that were measured: the packaged file is what the campaign found."""

import json
from pathlib import Path

import pytest

from tests import reference
from workbench.commands.known import known_of
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.thresholds import errors_of, known_thresholds, threshold_of


def test_they_are_those_of_the_campaign() -> None:
    document = json.loads((reference.FOLDER / "thresholds.json").read_text(encoding="utf-8"))
    held = [(known.max_visual, known.fails_at) for known in known_thresholds()]
    assert held == [(found["max_visual"], found["fails_at"]) for found in document.values()]
    assert {known.device for known in known_thresholds()} == {"h100-80gb"}


@pytest.mark.slow
def test_the_predictions_are_today_s() -> None:
    assert tuple(reference.known_thresholds()) == known_thresholds()


def test_the_errors_are_those_of_cells_of_the_same_scope_and_pass() -> None:
    first = known_thresholds()[0]
    found = errors_of(first.cell, "h100-80gb")
    assert found is not None
    assert (found.num, found.kind, found.models) == (4, "decoder train", ("mistral-7b-v0.3",))
    worst = max(abs(k.predicted / k.max_visual - 1) for k in known_thresholds())
    assert found.worst == pytest.approx(worst)
    assert f"{worst:.1%} at worst" in found.words
    assert errors_of(first.cell.replace(scope="layer"), "h100-80gb") is None
    assert errors_of(first.cell, "h200-141gb") is None


def test_what_is_known_of_a_cell_stands_beside_its_prediction() -> None:
    cell = known_thresholds()[1].cell.replace(num_visual=7)
    assert threshold_of(cell, "h100-80gb") == known_thresholds()[1]
    known = known_of(cell, "h100-80gb", reference.STORE)
    stored, measured = known.lines()
    assert "132,687 visual tokens ran, 134,013 were out of memory (flash, NVIDIA H100" in stored
    assert measured.startswith("Measured: 132,687 visual tokens ran, 134,013 were out of memory")
    assert known.error == errors_of(cell, "h100-80gb").words  # type: ignore[union-attr]
    assert known.document()["measured"] == {
        "max_visual": 132687,
        "fails_at": 134013,
        "emulate": 2,
    }


def test_what_nobody_measured_is_said(tmp_path: Path) -> None:
    unknown = known_of(Cell(num_visual=1), "h200-141gb", None)
    assert list(unknown.lines()) == []
    assert unknown.error.endswith(
        "unknown, no threshold of layer forward was measured on h200-141gb"
    )
    (first,) = known_of(Cell(num_visual=1), "my-card", reference.STORE).lines()
    assert first.endswith("holds no measured threshold of this cell")
