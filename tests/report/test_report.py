"""A report is complete, self-contained, escaped, and says only what the records say."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import typst
from markdown_it import MarkdownIt

from tests import golden
from workbench.inputs.sweep_file import load_sweep
from workbench.report import NothingToReport, ReportFiles, write_report
from workbench.report.contents import contents, without_source
from workbench.report.images import HINT, browser
from workbench.report.pdf import inputs, template, write_pdf
from workbench.report.write import html, markdown_text
from workbench.store import Store
from workbench.store.export import export
from workbench.telling.page import Table
from workbench.vocabulary.errors import Failure, RequestError
from workbench.vocabulary.sweep import Sweep

READABLE = (
    "one_cell",
    "like_default",
    "all_statuses",
    "measured_only",
    "predicted_only",
    "hostile",
)


class Page(HTMLParser):
    """Tags, attributes and visible words of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words, self.scripts, self._inside = "", [""], ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag if tag in ("script", "style") else self._inside

    def handle_endtag(self, tag: str) -> None:
        if tag == self._inside:
            self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts.append(data)
        elif not self._inside:
            self.words += data.replace("\u2011", "-")  # a heading does not break there


@pytest.fixture(scope="module")
def written(stores: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, ReportFiles]:
    folder = tmp_path_factory.mktemp("reports")
    return {
        kind: write_report(stores / f"{kind}.db", folder / kind, static_images=False)
        for kind in READABLE
    }


@pytest.mark.parametrize("kind", READABLE)
def test_the_page_needs_nothing_else(written: dict[str, ReportFiles], kind: str) -> None:
    text = written[kind].html.read_text(encoding="utf-8")
    page = Page(text)
    assert not [attrs for _, attrs in page.tags if "src" in attrs]
    assert not [attrs for tag, attrs in page.tags if tag == "link"]
    links = {attrs.get("href") for tag, attrs in page.tags if tag == "a"}
    targets = {f"#{attrs['id']}" for _, attrs in page.tags if "id" in attrs}
    assert links <= targets
    assert [tag for tag, _ in page.tags].count("script") == 2
    (policy,) = [a["content"] for t, a in page.tags if t == "meta" and "http-equiv" in a]
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert len(text) < 12e6


@pytest.mark.parametrize("kind", READABLE)
def test_the_markdown_is_whole_tables(written: dict[str, ReportFiles], kind: str) -> None:
    source = written[kind].markdown.read_text(encoding="utf-8")
    page = MarkdownIt("gfm-like", {"linkify": False}).render(source)
    for body in re.findall(r"<table>(.*?)</table>", page, re.DOTALL):
        rows = [row.count("<td>") + row.count("<th>") for row in body.split("</tr>")[:-1]]
        assert len(set(rows)) == 1
        assert rows[0] > 1
    assert "| --" not in Page(page).words
    assert page.count("<table>") >= 5


def test_hostile_names_are_text_in_both(written: dict[str, ReportFiles]) -> None:
    page = Page(written["hostile"].html.read_text(encoding="utf-8"))
    assert golden.HOSTILE in page.words
    assert not {tag for tag, _ in page.tags} & {"b", "img", "iframe", "object"}
    figures = page.scripts[-1]
    for line in figures.splitlines()[:3]:
        assert line.startswith("const ")
        # HTML leaves a script at nothing else.
        assert "</" not in line
        assert "<!" not in line
    assert "&lt;script" in figures
    rendered = MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(
        written["hostile"].markdown.read_text(encoding="utf-8")
    )
    found = Page(rendered)
    assert golden.HOSTILE in found.words
    assert not {tag for tag, _ in found.tags} & {"script", "b", "a", "em"}


def test_the_headline_is_what_the_records_say(
    stores: Path, written: dict[str, ReportFiles]
) -> None:
    with Store.open(stores / "like_default.db") as store:
        records = {
            (r.cell.attention, r.cell.kernel, r.cell.num_visual): r
            for r in store.records()
            if r.source == "measured" and r.cell.pass_ == "forward"
        }
    ours, base = records["d_attn", "sdpa", 4096], records["s_attn", "eager", 4096]
    seconds = base.metrics["time_s"] / ours.metrics["time_s"]
    memory = base.metrics["peak_bytes"] / ours.metrics["peak_bytes"]
    flops = base.metrics["flops"] / ours.metrics["flops"]
    words = Page(written["like_default"].html.read_text(encoding="utf-8")).words
    sentence = re.search(
        r"At \|V\| = 4,096, the largest that both ran, D-Attn · sdpa is[^.]*"
        r"([\d.]+)× as fast as S-Attn · eager \(([\d.]+) s against ([\d.]+) s\),"
        r" with ([\d.]+)× less peak memory and ([\d.]+)× fewer FLOPs",
        words,
    )
    assert sentence
    told = [float(number) for number in re.findall(r"([\d.]+)[×s ]", sentence[0])]
    for value in (seconds, ours.metrics["time_s"], base.metrics["time_s"], memory, flops):
        assert any(number == pytest.approx(value, rel=6e-3) for number in told), (value, told)
    assert "Out of memory: S-Attn · eager at |V| = 8,192" in words
    assert "S-Attn · sdpa and D-Attn · sdpa still ran at |V| = 8,192" in words


def test_a_source_that_all_rows_share_stands_below_the_table() -> None:
    table = Table("t", ("what", "source", "s"), (("a", "measured on x", "1"),) * 2, "Note.")
    short = without_source(table)
    assert short.columns == ("what", "s")
    assert short.rows == (("a", "1"),) * 2
    assert short.note == "All measured on x. Note."
    mixed = replace(table, rows=(*table.rows, ("a", "predicted for x", "1")))
    assert without_source(mixed) == mixed


def test_what_is_missing_is_said(written: dict[str, ReportFiles]) -> None:
    def words(kind: str) -> str:
        return Page(written[kind].html.read_text(encoding="utf-8")).words

    assert "Nothing here was measured" in words("predicted_only")
    assert "that both ran" not in words("predicted_only")
    assert "Nothing here was predicted" in words("measured_only")
    assert "Not compared against S-Attn with the eager kernel or" in words("one_cell")
    assert "Lines with a band" not in words("one_cell")
    statuses = words("all_statuses")
    for reason in ("signal 9", "no answer within 900 s", "boom", "soft-capping"):
        assert reason in statuses


def test_the_commands_reproduce_the_sweep(stores: Path, written: dict[str, ReportFiles]) -> None:
    files = written["like_default"]
    with Store.open(stores / "like_default.db") as store:
        (run,) = store.runs()
    (spec,) = files.specs
    assert load_sweep(spec) == Sweep.model_validate(run.spec)
    command = f"workbench sweep data/{spec.name} --store again.db"
    for text in (files.markdown, files.reproduce):
        assert command in text.read_text()
    assert "0123abc" in files.reproduce.read_text()


def test_two_reports_differ_in_the_stamp_only(stores: Path) -> None:
    path = stores / "two_runs.db"
    first, second = contents(path), contents(path)
    assert html(first, "@STAMP@").replace("@STAMP@", "later") == html(second, "later")
    assert markdown_text(first, "@STAMP@") == markdown_text(second, "@STAMP@")


@pytest.mark.parametrize("kind", ["empty", "nothing_ran"])
def test_nothing_to_report_names_the_sweep_that_fills_it(
    stores: Path, tmp_path: Path, kind: str
) -> None:
    with pytest.raises(NothingToReport, match=r"workbench sweep probes/default\.py") as raised:
        write_report(stores / f"{kind}.db", tmp_path / "out")
    assert isinstance(raised.value, Failure)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["damaged", "not_a_store", "missing"])
def test_a_broken_store_is_refused(stores: Path, tmp_path: Path, kind: str) -> None:
    with pytest.raises((RequestError, Failure), match=kind):
        write_report(stores / f"{kind}.db", tmp_path / "out")


def test_a_folder_that_cannot_be_made(stores: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RequestError, match="file"):
        write_report(stores / "one_cell.db", tmp_path / "file", static_images=False)


def test_without_chromium_there_is_one_line_about_it(
    stores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("BROWSER_PATH", raising=False)
    files = write_report(stores / "one_cell.db", tmp_path)
    assert files.notes == (HINT,)
    assert "apt-get install chromium" in HINT
    assert files.figures == ()
    text = files.markdown.read_text()
    assert "![" not in text
    assert "apt-get install chromium" in text


def test_a_browser_that_does_not_start_is_one_line(
    stores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROWSER_PATH", "/bin/false")
    files = write_report(stores / "one_cell.db", tmp_path)
    (note,) = files.notes
    assert note.startswith("the browser /bin/false failed, so the report has no PNG or SVG")
    assert files.figures == ()
    text = files.markdown.read_text()
    assert "![" not in text
    assert note in text


def test_a_run_that_is_no_sweep_is_repeated_by_a_sweep_over_its_cells(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with Store.open(path, mode="w") as store:
        store.add(store.begin_run("limit", {}, golden.LAPTOP), golden.record(num_visual=64))
    files = write_report(path, tmp_path / "out", static_images=False)
    (spec,) = files.specs
    (point,) = load_sweep(spec).points()
    assert (point.cell, point.source, point.device) == (
        golden.record(num_visual=64).cell,
        "measured",
        "cpu",
    )
    assert f"workbench sweep data/{spec.name}" in files.reproduce.read_text()
    assert "workbench report again.db" in files.reproduce.read_text()


def test_run_names_cannot_leave_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with Store.open(path, mode="w") as store:
        name = "../../etc/x; rm -rf $HOME `id`"
        spec = {"name": "s", "grids": [{"visual": [64]}]}
        run = store.begin_run("s", spec, golden.LAPTOP, run_id=name)
        store.add(run, golden.record(num_visual=64))
    files = write_report(path, tmp_path / "out", static_images=False)
    (spec,) = files.specs
    assert spec.resolve().parent == (tmp_path / "out" / "data").resolve()
    assert re.fullmatch(r"[A-Za-z0-9._-]+", spec.name)
    for text in (files.markdown.read_text(), files.reproduce.read_text()):
        assert all("rm -rf" not in command for command in text.split("```")[1::2])


def test_the_figures_of_the_page_are_json(stores: Path, written: dict[str, ReportFiles]) -> None:
    script = Page(written["like_default"].html.read_text(encoding="utf-8")).scripts[-1]
    data = script.split("\n", 1)[0].removeprefix("const FIGURES = ").removesuffix(";")
    figures = json.loads(data)
    assert len(figures) == len(contents(stores / "like_default.db").figures) >= 8
    for themes in figures.values():
        assert set(themes) == {"light", "dark"}


@pytest.mark.browser
@pytest.mark.skipif(browser() is None, reason=HINT)
def test_pictures_and_paper_are_written(stores: Path, tmp_path: Path) -> None:
    files = write_report(stores / "one_cell.db", tmp_path)
    text = files.markdown.read_text()
    drawn = contents(stores / "one_cell.db").figures
    assert [path.name for path in files.figures] == [
        f"{figure.slug}.{kind}" for figure in drawn for kind in ("png", "svg")
    ]
    for figure, picture in zip(drawn, files.figures[::2], strict=True):
        head = picture.read_bytes()[:24]
        assert head[:8] == b"\x89PNG\r\n\x1a\n"
        assert int.from_bytes(head[16:20], "big") == 2 * figure.width
        assert f"](figures/{picture.name})" in text
    for drawing in files.figures[1::2]:
        assert drawing.read_text().startswith("<svg")
    assert files.pdf is not None
    assert files.pdf.read_bytes()[:5] == b"%PDF-"
    # The pictures are in it: without them it is a tenth of the size.
    assert files.pdf.stat().st_size > 200_000


def test_hostile_names_are_text_on_paper(stores: Path, tmp_path: Path) -> None:
    found = contents(stores / "hostile.db")
    told = json.loads(
        typst.query(
            template(),
            "heading.where(level: 1)",
            field="body",
            ignore_system_fonts=True,
            sys_inputs=inputs(found, "@STAMP@", (), tmp_path),
        )
    )
    words = [body.get("text") for body in told]
    assert words[: len(found.sections)] == [section.title for section in found.sections]
    assert golden.HOSTILE in words[0]


def test_two_papers_differ_in_the_stamp_only(stores: Path, tmp_path: Path) -> None:
    found = contents(stores / "two_runs.db")
    first = write_pdf(found, "now", (), tmp_path)
    assert first is not None
    before = first.read_bytes()
    write_pdf(contents(stores / "two_runs.db"), "now", (), tmp_path)
    assert first.read_bytes() == before


def test_questions_are_answered_or_name_what_would_answer_them(
    stores: Path, tmp_path: Path
) -> None:
    with pytest.raises(NothingToReport, match=r"workbench sweep probes/himix\.py --store"):
        write_report(stores / "like_default.db", tmp_path / "out", question="himix")
    with pytest.raises(NothingToReport, match=r"probes/default\.py"):
        write_report(stores / "one_cell.db", tmp_path / "out", question="kernel-choice")
    with pytest.raises(RequestError, match="name the earlier one"):
        write_report(stores / "two_runs.db", tmp_path / "out", question="regression")
    with pytest.raises(RequestError, match="is about one store"):
        contents(stores / "two_runs.db", against=stores / "two_runs.db")
    with pytest.raises(RequestError, match="both stores are this one"):
        contents(stores / "two_runs.db", "regression", stores / "two_runs.db")
    with pytest.raises(RequestError, match="dattn-vs-sattn, himix, kernel-choice"):
        contents(stores / "two_runs.db", "why")
    assert not (tmp_path / "out").exists()


def test_a_regression_names_the_worst_cell(tmp_path: Path) -> None:
    before = [golden.record(attention="d_attn", num_visual=v, samples=12) for v in (256, 1024)]
    after = [before[0], golden.slower(before[1])]
    for name, records in (("before", before), ("after", after)):
        with Store.open(tmp_path / f"{name}.db", mode="w") as store:
            store.add_many(store.begin_run("s", {"name": "s"}, golden.LAPTOP), records)
    found = contents(tmp_path / "after.db", "regression", tmp_path / "before.db")
    assert ": 1 slower and 1 " in found.answer[0]
    assert "D-Attn · sdpa at |V| = 1,024" in found.answer[1]
    assert "1.20×" in found.answer[1]
    assert found.answer[2] == "The two environments are the same."
    (cells,) = (section for section in found.sections if section.slug == "cells")
    assert cells.blocks[0].tables[0].rows[0][0] == "slower"


def test_the_data_are_the_export_of_the_store(
    stores: Path, tmp_path: Path, written: dict[str, ReportFiles]
) -> None:
    export(stores / "like_default.db", tmp_path)
    data = written["like_default"].html.parent / "data"
    for name in ("records", "metrics", "samples"):
        for kind in ("csv", "parquet"):
            ours = (data / f"{name}.{kind}").read_bytes()
            assert ours == (tmp_path / f"{name}.{kind}").read_bytes()
    environments = json.loads((data / "environment.json").read_text())
    assert [one["commit"] for one in environments.values()] == ["0123abc"]


def test_published_figures_are_marked(written: dict[str, ReportFiles]) -> None:
    text = written["like_default"].markdown.read_text()
    rows = [line for line in text.splitlines() if "68.3" in line]
    assert len(rows) == 2
    assert all("| published |" in line for line in rows)
    assert "probes/paper_table2.py --store like_default.db adds it" in text
