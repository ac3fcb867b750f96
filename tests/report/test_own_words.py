"""The author's own words: the same in every file, and nothing in them is markup of ours."""

import json
import re
from pathlib import Path

import pytest
import typst
from markdown_it import MarkdownIt
from PIL import Image

from tests.golden import HOSTILE
from tests.reference import STORE
from workbench.report.contents import contents
from workbench.report.own_words import Paragraph, Run, as_markdown, paragraphs
from workbench.report.pdf import inputs, template
from workbench.report.slides import NOTE, beginning
from workbench.telling.page import Contents, Table

NOTE_TEXT = """\
# Why we ask

We take **D-Attn** for *our* `minute`
of video.

- one
- two <b>x</b>

3. three

| a | b |
|---|---|
| c | d |

```
<i>code</i>
```

<script>alert(1)</script> [click](javascript:alert(1)) ![x](http://evil.example/x.png)
"""


def test_a_note_is_paragraphs_of_runs() -> None:
    head, first, one, two, three, names, cells, code, evil = paragraphs(NOTE_TEXT)
    assert head == Paragraph((Run("Why we ask", bold=True),))
    assert [run for run in first.runs if run.bold or run.italic or run.code] == [
        Run("D-Attn", bold=True),
        Run("our", italic=True),
        Run("minute", code=True),
    ]
    assert first.text == "We take D-Attn for our minute of video."
    assert (one.text, two.text, three.text) == ("• one", "• two <b>x</b>", "3. three")
    assert (names.text, cells.text) == ("a | b", "c | d")
    assert names.runs[0].bold
    assert code.runs == (Run("<i>code</i>", code=True),)
    assert evil.text.startswith("<script>alert(1)</script> [click](javascript:alert(1)) ![x](http")


@pytest.mark.parametrize(
    "text", [NOTE_TEXT, HOSTILE, f"- {HOSTILE}\n\n> {HOSTILE}\n\n# {HOSTILE}"]
)
def test_its_markdown_has_no_tag_link_or_picture_in_any_renderer(text: str) -> None:
    html = MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(
        as_markdown(paragraphs(text))
    )
    tags = set(re.findall(r"<\s*/?\s*([a-zA-Z!]+)", html))
    assert tags <= {"p", "strong", "em", "ul", "ol", "li"}


def test_its_markdown_keeps_the_words_and_their_styles() -> None:
    text = as_markdown(paragraphs("# Why\n\nWe **take** it *now*.\n\n- one\n\n2. two\n"))
    assert text == "**Why**\n\nWe **take** it *now*.\n\n- one\n\n2. two"


def test_a_slide_has_the_beginning_and_says_that_there_is_more() -> None:
    assert beginning("") == []
    assert beginning("We **take** it.") == ["We take it."]
    texts = beginning("\n\n".join(["word " * 12] * 9))
    assert texts[-1].endswith("… (the rest is in report.html)")
    assert sum(map(len, texts)) < NOTE + 40
    (only,) = beginning("word " * 900)
    assert only.endswith("word … (the rest is in report.html)")


def case_of() -> Table:
    """A case of the length that they have."""
    rows = tuple(
        (f"GPU-hours for {at},000 steps", *("no, needs 2.75 TiB",) * 4) for at in range(6)
    )
    systems = (
        "S-Attn · eager",
        "S-Attn · cudnn",
        "D-Attn · cudnn",
        "D-Attn · cudnn · chunk 8,192",
    )
    return Table("Your case, predicted: " + "words " * 30, ("", *systems), rows, "a note " * 90)


@pytest.fixture(scope="module")
def report() -> Contents:
    return contents(STORE, note=NOTE_TEXT, case=case_of())


def test_the_first_page_is_one_page_on_paper(report: Contents, tmp_path: Path) -> None:
    """With its figure, the author's words and the reader's case."""
    assert report.first is not None
    figure = report.first.figure
    (tmp_path / "figures").mkdir()
    blank = Image.new("RGB", (figure.width, figure.height), "white")
    blank.save(tmp_path / "figures" / f"{figure.slug}.png")
    given = inputs(report, "a stamp", (), tmp_path)
    first = json.loads(given["report"])["first"][0]
    assert first["figure"]["path"]
    assert first["note"][1]["runs"][1]["bold"]
    end = typst.query(
        template(),
        "<first-page-ends>",
        field="value",
        one=True,
        root=str(tmp_path),
        sys_inputs=given,
        ignore_system_fonts=True,
    )
    assert json.loads(end) == 1
