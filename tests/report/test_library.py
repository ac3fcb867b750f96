"""The drawing library that a report carries is the one that its package says, and its figures."""

import copy
import hashlib
import json
from typing import Any

from plotly.offline import get_plotlyjs_version

from workbench.report.library import plotly_js, source
from workbench.report.script import difference, said_once


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


def unfolded(value: Any, shared: list[Any]) -> Any:
    """As the page's script does it."""
    if isinstance(value, list):
        return [unfolded(each, shared) for each in value]
    if isinstance(value, dict):
        if "&" in value:
            return unfolded(shared[value["&"]], shared)
        return {key: unfolded(each, shared) for key, each in value.items()}
    return value


def test_what_figures_repeat_is_said_once() -> None:
    axis = {"title": {"text": "visual tokens |V|", "font": {"size": 14}}, "gridcolor": "#e3e6ea"}
    sizes = list(range(100, 130))
    whole = {"a": {"x": sizes, "axis": axis}, "b": {"x": sizes, "axis": axis, "short": [1]}}
    whole["c"] = {"axis": {**axis, "gridcolor": "#333a42"}, "short": [1]}
    found, shared = said_once(whole)
    assert unfolded(found, shared) == whole
    text = json.dumps([found, shared])
    assert text.count("visual tokens") == 1
    assert text.count("100, 101") == 1
    assert found["b"]["short"] == [1]
    assert len(shared) == 3  # The title is the third axis' as well.
