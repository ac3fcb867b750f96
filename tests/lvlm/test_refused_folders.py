"""Folders of types that no part here expresses: one line with the type and the reason."""

import json

import pytest

from workbench.lvlm.configs.refused import REFUSED
from workbench.lvlm.models import resolve
from workbench.vocabulary.errors import RequestError

WRAPPED = {}
"""Text models as the published config.json around them has them; others are outer types."""


@pytest.mark.parametrize("kind", sorted(REFUSED))
def test_a_folder_of_such_a_type_is_one_line(kind, tmp_path):
    fields = WRAPPED.get(kind, {"model_type": kind, "auto_map": {"AutoModel": "code.Model"}})
    (tmp_path / "config.json").write_text(json.dumps(fields))
    with pytest.raises(RequestError) as said:
        resolve(str(tmp_path))
    wanted = f"model {str(tmp_path)!r}: model_type {kind!r} is not served: {REFUSED[kind]}"
    assert str(said.value) == wanted
    assert "\n" not in wanted
