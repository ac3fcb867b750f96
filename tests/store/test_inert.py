"""Text on its way into a spreadsheet or a renderer."""

import pytest

from workbench.store.inert import inert, unlinked


@pytest.mark.parametrize(
    "text",
    [
        "=1",
        "+1",
        "-1",
        "@a",
        "\t=1",
        "\tx",
        "\rx",
        "\nx",
        " =1",
        "\ufeff=1",
        "＝1",
        "\u00a0@a",
        '=HYPERLINK("http://evil.example")',
    ],
)
def test_a_text_that_a_spreadsheet_might_run_is_marked(text: str) -> None:
    assert inert(text) == f"'{text}"


@pytest.mark.parametrize("value", ["a=1", "S-Attn", "", " x", -1, -0.5, None, True, 2**70])
def test_all_else_is_as_it_was(value: object) -> None:
    assert inert(value) is value


def test_names_without_an_address_are_as_they_were() -> None:
    for name in ("mistral-7b-v0.3", "a: b", "x // y", "wwwx", "hub-user/model"):
        assert unlinked(name) == name
