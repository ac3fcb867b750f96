"""Tables of text: as plain as they were, and as narrow as they must be."""

import pytest
from streamlit.testing.v1 import AppTest

DRAW = """
from workbench.dashboard.tables import draw_table
draw_table({columns!r}, {rows!r})
"""


def drawn(columns: list[str], rows: list[list[str]]) -> str:
    test = AppTest.from_string(DRAW.format(columns=columns, rows=rows)).run()
    assert not test.exception
    (html,) = test.get("html")
    return str(html.proto.body)


def test_no_cell_becomes_markup() -> None:
    html = drawn(["<i>a</i>"], [["<script>alert(1)</script>"], ['" onload="x']])
    assert "<script" not in html
    assert "<i>" not in html
    assert "&lt;script&gt;" in html
    assert '" onload="' not in html


def test_a_row_names_its_values_for_where_it_stands_alone() -> None:
    html = drawn(["system", "s/it"], [["D-Attn", "1.01 s"]])
    assert '<td data-name="s/it">1.01\u00a0s</td>' in html


@pytest.mark.parametrize(("count", "room"), [(3, 24), (9, 48), (40, 60)])
def test_a_table_that_needs_more_room_gives_way_earlier(count: int, room: int) -> None:
    html = drawn([f"c{n}" for n in range(count)], [["checkpoint"] * count])
    assert f"class='room-{room}'" in html
