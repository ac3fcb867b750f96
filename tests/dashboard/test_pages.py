"""Every page over every kind of store, run by Streamlit without a browser."""

import json
import shlex
import sqlite3
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from textwrap import dedent

import pytest
from streamlit.testing.v1 import AppTest
from typer.testing import CliRunner

from tests import golden
from workbench.aspects import ASPECTS
from workbench.cli import app
from workbench.commands.options import give_all_options
from workbench.dashboard import pages
from workbench.dashboard.pages.runs import repeats
from workbench.dashboard.shell import opened
from workbench.store import Store
from workbench.telling.text import markdown
from workbench.vocabulary.cell import FIELDS, field_label

give_all_options()
APP = Path(__file__).resolve().parents[2] / "app.py"
PAGES = sorted(found.name for found in iter_modules(pages.__path__))
WITHOUT_STORE = ("planner",)
"""Pages that have something to say where there is no store."""
READABLE = ("one_cell", "all_statuses", "nothing_ran", "hostile", "two_runs")
BROKEN = {
    "empty": ("No records yet", "workbench sweep probes/default.py --store empty.db"),
    "damaged": ("This store cannot be read", "damaged"),
    "not_a_store": ("This store cannot be read", "not a store"),
}


def page(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, **query: str) -> AppTest:
    """The page as a reader meets it who opens the dashboard in ``folder``."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.argv", ["app.py"])
    monkeypatch.delenv("WORKBENCH_STORE", raising=False)
    code = f"from workbench.dashboard.pages import {name}\n{name}.render()\n"
    test = AppTest.from_string(code, default_timeout=180)
    for key, value in query.items():
        test.query_params[key] = value
    return test.run()


def words(test: AppTest) -> str:
    parts = [*test.title, *test.markdown, *test.caption, *test.info, *test.error, *test.warning]
    # Words on top do not break at the hyphen of a system's name, nor within a size.
    text = "\n".join(str(part.value) for part in parts)
    return text.replace("\u2011", "-").replace("\u2060", "").replace("\u00a0", " ")


@pytest.mark.parametrize("kind", READABLE)
@pytest.mark.parametrize("name", PAGES)
def test_every_page_draws_every_store(
    name: str, kind: str, stores: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    test = page(name, stores, monkeypatch, store=f"{kind}.db")
    assert not test.exception
    assert len(test.title) == 1
    assert not test.error


@pytest.mark.parametrize("name", [name for name in PAGES if name not in WITHOUT_STORE])
@pytest.mark.parametrize("kind", BROKEN)
def test_every_page_has_a_state_for_what_it_cannot_show(
    name: str, kind: str, stores: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    title, help_ = BROKEN[kind]
    test = page(name, stores, monkeypatch, store=f"{kind}.db")
    assert not test.exception
    assert [part.value for part in test.title] == [title]
    assert help_ in words(test)


def test_without_any_store_the_page_says_how_to_make_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    test = page("scaling", tmp_path, monkeypatch)
    assert not test.exception
    assert "workbench sweep probes/default.py" in words(test)


def test_a_link_that_leads_to_itself_is_one_line(
    stores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.db").write_bytes((stores / "one_cell.db").read_bytes())
    (tmp_path / "loop.db").symlink_to(tmp_path / "loop.db")
    test = page("scaling", tmp_path, monkeypatch, store="loop.db")
    assert not test.exception
    assert "There is no such store here" in words(test)
    monkeypatch.setenv("WORKBENCH_STORE", str(tmp_path / "loop.db"))
    test.query_params["store"] = "loop.db"
    assert "Too many levels of symbolic links" in words(test.run())


@pytest.mark.parametrize("store", ["../secret.db", "/etc/passwd", "gone.db"])
def test_a_link_to_no_store_here_lists_those_that_are(
    store: str, stores: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    test = page("scaling", stores, monkeypatch, store=store)
    assert not test.exception
    assert test.title[0].value == "This link leads nowhere"
    assert "like_default.db" in words(test)
    assert ("inside the folder" in words(test)) == (store != "gone.db")


def test_a_link_restores_the_view(stores: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    view = {
        "store": "like_default.db",
        "pass": "train",
        "metric": "time",
        "y": "linear",
        "source": "measured",
    }
    test = page("scaling", stores, monkeypatch, **view)
    for key, value in view.items():
        assert test.get_by_key(key).value == value
    assert "training step" in words(test)
    assert "Measured on cpu" in words(test)
    assert "Predicted for" not in words(test)


@pytest.mark.parametrize("kind", ["measured_only", "predicted_only"])
@pytest.mark.parametrize("name", ["overview", "scaling", "memory"])
def test_one_source_alone_is_enough(
    name: str, kind: str, stores: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    test = page(name, stores, monkeypatch, store=f"{kind}.db")
    assert not test.exception
    other = "predicted" if kind == "measured_only" else "measured on"
    assert other not in words(test).lower().replace("published, not measured here", "")


def test_a_wrong_value_in_a_link_falls_back(stores: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    test = page("scaling", stores, monkeypatch, store="like_default.db", model="../x", y="cubic")
    assert not test.exception
    assert test.get_by_key("model").value == "mistral-7b-v0.3"
    assert test.get_by_key("y").value == "log"


def test_names_from_a_store_are_text(stores: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    test = page("scaling", stores, monkeypatch, store="hostile.db")
    assert "<script" not in words(test)
    assert "[l](" not in words(test)


def test_the_newest_record_of_each_cell_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store.open(tmp_path / "two.db", mode="w") as store:
        for environment, samples in ((golden.LAPTOP, 3), (golden.NODE, 7)):
            run = store.begin_run("s", {"name": "s"}, environment)
            store.add(run, golden.record(num_visual=64, samples=samples))
    test = page("scaling", tmp_path, monkeypatch)
    assert "1 cell, median of 7 samples" in words(test)
    older = test.get_by_key("run").options[-1]
    test.get_by_key("run").set_value(older).run()
    assert "1 cell, median of 3 samples" in words(test)


def test_a_run_is_compared_with_one_of_another_store(
    stores: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    test = page("compare", stores, monkeypatch, store="later.db", between="two runs")
    assert "pick the store of before" in words(test)
    test = page("compare", stores, monkeypatch, store="later.db", old_store="two_runs.db")
    assert not test.exception
    assert test.get_by_key("old_store").value == "two_runs.db"
    oldest = test.get_by_key("old").options[0]
    test.get_by_key("old").set_value(oldest).run()
    assert "**3** slower" in words(test)
    assert "**6** can't tell" in words(test)  # Noise of 4 % in 12 samples.


@pytest.mark.parametrize("name", ["overview", "scaling"])
def test_every_comparison_stands_there_once_it_is_opened(
    name: str, stores: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    test = page(name, stores, monkeypatch, store="like_default.db")
    before = words(test)
    test.session_state["comparisons"] = True
    test.run()
    assert not test.exception
    assert words(test).count("\n- ") > before.count("\n- ")
    assert "less peak memory" in words(test)
    assert "less peak memory" not in before


def test_two_systems_are_compared_where_no_two_runs_can_be(
    stores: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    test = page("compare", stores, monkeypatch, store="later.db", between="two systems")
    assert not test.exception
    system, baseline = (test.get_by_key(key).value for key in ("this", "that"))
    assert (system, baseline) == ("D-Attn · sdpa", "S-Attn · sdpa")
    (first, *_) = [part.value for part in test.markdown if "as fast as" in part.value]
    assert "fewer FLOPs" in first
    test.get_by_key("this").set_value("S-Attn · sdpa").run()
    assert not test.exception
    assert test.get_by_key("that").value != "S-Attn · sdpa"


@pytest.mark.parametrize("name", ["overview", "scaling"])
def test_many_systems_are_not_all_drawn_at_once(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names are opaque words to a store, so there may be any number of systems."""
    made = [
        golden.record(attention=f"own_{i:02}", num_visual=v)
        for i in range(40)
        for v in (64, 128, 256, 512)
    ]
    with Store.open(tmp_path / "s.db", mode="w") as store:
        store.add_many(store.begin_run("s", {}, golden.LAPTOP), made)
    test = page(name, tmp_path, monkeypatch)
    assert not test.exception
    chart = test.get("plotly_chart")[0]
    assert len(chart.proto.spec) < 1_000_000
    assert "own_39" not in chart.proto.spec
    if name == "scaling":
        test.get_by_key("systems").set_value(["own_39 · sdpa"]).run()
    else:
        assert "9 systems of 40" in words(test)
        test.get_by_key("system").set_value("own_39 · sdpa").run()
    assert "own_39" in test.get("plotly_chart")[0].proto.spec


@pytest.mark.parametrize(
    "cell",
    [
        {"attention": "himix", "logits": "text"},
        {"attention": "d_attn", "logits": "text"},
        {"memory_cap": 10**9, "batch": 2, "num_text": 7},
    ],
)
def test_the_command_of_a_row_repeats_its_very_cell(cell: dict, tmp_path: Path) -> None:
    made = golden.record("predicted", "h100-80gb", num_visual=64, **cell)
    with Store.open(tmp_path / "s.db", mode="w") as store:
        store.add(store.begin_run("s", {}, golden.LAPTOP), made)
    here = opened("s.db", tmp_path / "s.db")
    words = shlex.split(repeats(here, here.frame.head(1)))
    result = CliRunner().invoke(app, [*words[1:], "--json"])
    assert json.loads(result.stdout)["key"] == made.cell.key


def test_a_row_that_cannot_be_read_is_said_on_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    golden.build(tmp_path / "one.db", "one_cell")
    with sqlite3.connect(tmp_path / "one.db") as connection:
        connection.execute("UPDATE records SET metrics = '[1, 2'")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["app.py"])
    test = AppTest.from_file(str(APP), default_timeout=180).run()
    assert not test.exception
    assert "damaged" in words(test)


@pytest.fixture(scope="module")
def varied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose cells differ in every field that a cell has, one at a time."""
    folder = tmp_path_factory.mktemp("varied")
    pairs = [golden.another(name) for name in FIELDS]
    cells = {cell.key: cell for pair in pairs for cell in pair}
    made = [golden.record(**cell.document()) for cell in cells.values()]
    with Store.open(folder / "varied.db", mode="w") as store:
        store.add_many(store.begin_run("s", {}, golden.LAPTOP), made)
    return folder


@pytest.mark.parametrize(
    "name",
    [n for n in PAGES if hasattr(import_module(f"workbench.dashboard.pages.{n}"), "subject")],
)
def test_every_page_draws_cells_that_differ_in_any_field(
    name: str, varied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = {"scope": "lvlm", "pass": "train"}
    test = page(name, varied, monkeypatch, store="varied.db", **subject)
    assert not test.exception
    controls = {part.label for part in test.sidebar.selectbox}
    assert {field_label(name) for name in ("accumulate", "frozen", "zero")} <= controls


def test_the_entry_draws_its_first_page(stores: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(stores)
    monkeypatch.setattr("sys.argv", ["app.py", str(stores / "one_cell.db")])
    test = AppTest.from_file(str(APP), default_timeout=180).run()
    assert not test.exception
    assert test.get_by_key("store").value == "one_cell.db"


def test_every_page_is_in_the_navigation() -> None:
    """By its name, or as the page of the aspect that has its name."""
    source = APP.read_text(encoding="utf-8")
    for name in PAGES:
        assert name in ASPECTS or f"{name}.render" in source


def test_an_aspect_without_a_page_of_its_own_has_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    golden.build(tmp_path / "one.db", "two_runs")
    (name, *_) = sorted(set(ASPECTS) - set(PAGES))
    code = f"""
        from workbench.aspects import ASPECTS
        from workbench.dashboard.plain import draw
        draw({name!r}, ASPECTS[{name!r}])
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["app.py"])
    test = AppTest.from_string(dedent(code), default_timeout=180).run()
    assert not test.exception
    assert test.title[0].value == markdown(ASPECTS[name].question)
    assert any("<table" in str(part.value) for part in test.get("html")) or test.dataframe
