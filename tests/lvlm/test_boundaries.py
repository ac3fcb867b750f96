"""The table of what is modelled, refused and flagged is the code's."""

from pathlib import Path

import pytest

from workbench.lvlm.pages.boundaries import ROWS, Boundary, table

METHOD = Path(__file__).parents[2] / "docs" / "method.md"


def test_the_page_has_the_code_s_table() -> None:
    assert table() in METHOD.read_text(encoding="utf-8")


def test_a_row_is_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    row = Boundary("origami", "cranes", "frogs", "")
    monkeypatch.setattr("workbench.lvlm.pages.boundaries.ROWS", [*ROWS, lambda: iter([row])])
    assert table().splitlines()[-1] == "| origami | cranes | frogs | – |"
