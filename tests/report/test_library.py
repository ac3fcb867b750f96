"""The drawing library that a report carries is the one that its package says, and its figures."""

import copy
import hashlib
import json
from typing import Any

from plotly.offline import get_plotlyjs_version

from workbench.report.library import plotly_js, source
from workbench.report.write import difference


def test_it_is_the_version_that_plotly_carries_and_the_file_that_was_published() -> None:
    found = source()
    assert found["version"] == get_plotlyjs_version()
    script = plotly_js()
    assert hashlib.sha256(script.encode()).hexdigest() == found["sha256"]
    assert f"plotly.js (cartesian - minified) v{found['version']}" in script[:200]
    assert found["license"] == "MIT"


def patched(whole: Any, patch: dict[str, Any]) -> Any:
    """As the page's script does it."""
    if "=" in patch:
        return patch["="]
    made = copy.copy(whole)
    for key, inner in patch.items():
        at = int(key) if isinstance(whole, list) else key
        made[at] = patched(whole[at], inner)
    return made


def test_the_dark_figure_is_the_light_one_with_what_differs() -> None:
    light = {"data": [{"x": [1, 2], "c": "a"}, {"x": [3]}], "layout": {"t": 1, "u": {"v": None}}}
    dark = {"data": [{"x": [1, 2], "c": "b"}, {"x": [3, 4]}], "layout": {"t": 1, "u": {"v": {}}}}
    found = difference(light, dark)
    assert patched(light, found) == dark
    assert '"t":' not in json.dumps(found)
    assert difference(light, light) == {}
