"""The built pages: links lead somewhere, nothing comes from outside."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

from workbench import aspects
from workbench.report.glossary import page as glossary_page

ROOT = Path(__file__).parents[1]


class Page(HTMLParser):
    """What a page links to, loads, and can be linked to within it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.names: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value for name, value in attrs if value}
        self.names |= {found[name] for name in ("id", "name") if name in found}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        elif tag == "link" and found.get("rel") in ("stylesheet", "icon", "preload"):
            self.loads.append(found.get("href", ""))
        elif "src" in found:
            self.loads.append(found["src"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Page]:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {path: Page(path.read_text(encoding="utf-8")) for path in folder.rglob("*.html")}


def test_every_page_of_the_dashboard_has_one_here() -> None:
    questions = {name: aspect.question for name, aspect in aspects.in_order()}
    for name in ("overview", "planner", "compare", "runs"):
        shown = (ROOT / "workbench" / "dashboard" / "pages" / f"{name}.py").read_text()
        found = re.search(r'st\.title\("(.*)"\)', shown)
        assert found is not None
        questions[name] = found[1]
    folder = ROOT / "docs" / "dashboard"
    assert {page.stem for page in folder.glob("*.md")} == {*questions, "index"}
    for name, question in questions.items():
        heading = (folder / f"{name}.md").read_text(encoding="utf-8").splitlines()[0]
        assert question.lower() in heading.lower()


def test_the_glossary_is_the_one_that_pages_show() -> None:
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    assert text == glossary_page()


def test_every_link_leads_somewhere(site: dict[Path, Page]) -> None:
    broken, seen = [], 0
    for path, page in site.items():
        if path.name == "404.html":  # Its links are of the place where the site will stand.
            continue
        for link in (*page.links, *page.loads):
            target, anchor = urldefrag(unquote(link))
            if re.match(r"[a-z]+:|/", target):
                continue
            seen += 1
            file = (path.parent / target).resolve() if target else path
            named = anchor in site[file].names if file in site else not anchor
            if not file.exists() or (anchor and not named):
                broken.append(f"{path.name}: {link}")
    assert broken == []
    assert seen > 500


def test_nothing_is_loaded_from_outside(site: dict[Path, Page]) -> None:
    loads = {load for page in site.values() for load in page.loads}
    assert loads
    assert [load for load in loads if re.match(r"([a-z]+:)?//", load)] == []


def test_the_python_pages_have_every_function(site: dict[Path, Page]) -> None:
    import workbench

    (page,) = (page for path, page in site.items() if path.name == "python.html")
    functions = [name for name in workbench.__all__ if name[0].islower()]
    assert set(functions) <= {name.rpartition(".")[2] for name in page.names}
