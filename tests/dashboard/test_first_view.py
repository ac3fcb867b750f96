"""What a page opens with: where something ran, before where nothing did."""

from pathlib import Path

import pytest

from tests import golden
from tests.dashboard.test_pages import page, words
from workbench.store import Store
from workbench.vocabulary.record import Status


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A training step that fits at no |V|, and a prefill that does."""
    made = [
        golden.record(
            "predicted",
            "h100-80gb",
            Status.OOM if pass_ == "train" else Status.OK,
            attention=attention,
            num_visual=size,
            scope="decoder",
            **{"pass": pass_},
        )
        for pass_ in ("forward", "train")
        for attention in ("s_attn", "d_attn")
        for size in (256, 1024)
    ]
    with Store.open(tmp_path / "s.db", mode="w") as store:
        store.add_many(store.begin_run("s", {}, golden.LAPTOP), made)
    return tmp_path


def test_a_page_opens_where_something_fits(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert page("overview", folder, monkeypatch).get_by_key("pass").value == "forward"


def test_what_fits_nowhere_is_not_missing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    test = page("overview", folder, monkeypatch, **{"pass": "train"})
    assert not test.exception
    assert "no cell of S-Attn with a fused kernel fits" in words(test)
