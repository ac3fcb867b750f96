"""docs/systems.md is what the code's own docstrings and entries say."""

from pathlib import Path

from workbench.lvlm.attention import SYSTEMS
from workbench.lvlm.pages.systems import page
from workbench.lvlm.reduce import REDUCERS

PAGE = Path(__file__).parents[2] / "docs" / "systems.md"


def test_the_page_is_made_from_the_code():
    assert PAGE.read_text(encoding="utf-8") == page()


def test_every_name_has_a_section():
    for name in (*SYSTEMS, *REDUCERS):
        assert f"`{name}`\n" in page()
