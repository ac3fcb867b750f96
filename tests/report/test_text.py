"""Text from a store is shown as it is, whatever it is."""

import re

import pytest
from markdown_it import MarkdownIt

from tests.golden import HOSTILE
from workbench.store.inert import JOINER
from workbench.telling.text import listed, markdown

RENDER = MarkdownIt("gfm-like", {"html": True, "linkify": False}).render


def shown(source: str) -> str:
    """The words that a reader sees, and the tags that a browser would meet."""
    return RENDER(source)


LINKED = re.compile(
    r"(?:https?://|www(?=\.))[-.\w]+|(?:^|[\s\W])[-.\w+]+@[-\w]+(?:\.[-\w]+)+", re.IGNORECASE
)
"""What Streamlit's renderer makes a link of, once it has undone every escape."""


@pytest.mark.parametrize(
    "text",
    [
        HOSTILE,
        "a_b_c",
        "_x_",
        "__init__",
        "- list",
        "+ list",
        "1. list",
        "# head",
        "=====",
        "---",
        "> quote",
        "a | b",
        "`code`",
        "~~gone~~",
        "![i](u)",
        "<img src=x onerror=alert(1)>",
        "&copy;",
        "back\\slash\\| end",
        "https://example.com",
        "x@example.com",
        "HTTP://a.b",
        "WWW.example.com",
        "see www.example.com/a?b",
        "a_b@example.com",
        "https://x@y.example",
        "xmpp:a@b.example",
        "mailto:a@b.example",
        "[a]: b",
        "$x$",
        "mistral-7b-v0.3",
        "S-Attn · sdpa · chunk 16,384",
    ],
)
def test_markdown_shows_exactly_the_text(text: str) -> None:
    html = shown(markdown(text))
    inner = re.fullmatch(r"<p>(.*)</p>\n", html, re.DOTALL)
    assert inner, html
    assert "<" not in inner[1], html
    plain = inner[1].replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", '"')
    plain = plain.replace("&amp;", "&")
    assert plain.replace(JOINER, "") == " ".join(text.split())
    assert not LINKED.search(plain)


def test_a_cell_of_a_table_stays_one_cell() -> None:
    html = shown(f"| a | b |\n|---|---|\n| {markdown(HOSTILE)} | {markdown('x | y')} |\n")
    assert html.count("<td>") == 2
    assert "<script" not in html
    assert "<b>" not in html


def test_ordinary_names_stay_readable_in_the_source() -> None:
    for name in ("mistral-7b-v0.3", "s_attn", "h100-80gb", "S-Attn · sdpa", "2.79×", "10.5 ms"):
        assert markdown(name) == name


def test_line_breaks_do_not_break_out() -> None:
    assert markdown("a\n\n# b\r\n") == "a &#35; b"


def test_listed() -> None:
    assert [listed(list(words)) for words in ("", "a", "ab", "abc")] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]
