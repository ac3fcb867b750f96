"""docs/models.md is what the registries say, and what it refuses is refused in one line."""

import json
from pathlib import Path

import pytest

from workbench.lvlm.configs.refused import REFUSED
from workbench.lvlm.models import FAMILIES, MODELS, resolve
from workbench.lvlm.pages.models import page
from workbench.lvlm.towers import TOWERS
from workbench.vocabulary.errors import RequestError

PAGE = Path(__file__).parents[2] / "docs" / "models.md"


def test_the_page_is_made_from_the_code():
    text = page()
    assert PAGE.read_text(encoding="utf-8") == text
    for name in MODELS:
        assert text.count(f"| `{name}` |") == 1, name
    types = [outer for tower in TOWERS.values() for outer in tower.serves]
    for kind in (*types, *REFUSED, *(family.model_type for family in FAMILIES.values())):
        assert f"`{kind}`" in text, kind


@pytest.mark.parametrize("kind", sorted(REFUSED))
def test_what_is_refused_by_name_is_one_line(kind, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind, "auto_map": {}}))
    with pytest.raises(RequestError) as refusal:
        resolve(str(tmp_path))
    said = str(refusal.value)
    assert said == f"model {str(tmp_path)!r}: model_type {kind!r} is not served: {REFUSED[kind]}"
    assert "\n" not in said


def test_nothing_is_served_and_refused():
    served = {outer for tower in TOWERS.values() for outer in tower.serves}
    served |= {family.model_type for family in FAMILIES.values()}
    assert not served & set(REFUSED)


def test_a_refused_text_model_in_a_served_wrapper_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(REFUSED, "ministral3", "scaled queries")
    config = {"model_type": "mistral3", "text_config": {"model_type": "ministral3"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(RequestError, match="'ministral3' is not served: scaled queries"):
        resolve(str(tmp_path))
