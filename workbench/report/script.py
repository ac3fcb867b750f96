"""The script of a report's page: what draws its figures, and the figures as small as they go."""

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from plotly.utils import PlotlyJSONEncoder

from workbench.telling.page import Figure

SHORT = 40
"""Characters of JSON from which on a value that stands several times is said once."""


def inert(text: str) -> str:
    """Text that cannot end the script element it is put into."""
    return text.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def digest(text: str) -> str:
    """What a page's policy names a script by."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def difference(one: Any, other: Any) -> Any:
    """What of ``other`` is not as in ``one``: a mapping of what differs, by key or place.

    Two themes of a figure differ in their colours, and the rest would stand in the page twice.
    ``{"=": value}`` stands for a whole value. Both are JSON of the same shape or replaced whole.
    """
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        pairs: Any = one.keys()
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = range(len(one))
    else:
        return {"=": other}
    return {str(key): difference(one[key], other[key]) for key in pairs if one[key] != other[key]}


def said_once(value: Any) -> tuple[Any, list[Any]]:
    """JSON in which ``{"&": n}`` stands for the n-th of the second result, each there once.

    Panels share their points' sizes, and figures their axes: a third of a page is repeated.
    """
    texts: dict[int, str] = {}
    counts: Counter[str] = Counter()

    def count(value: Any) -> str:
        if isinstance(value, dict):
            text = ",".join(f"{_json(key)}:{count(inner)}" for key, inner in value.items())
            text = f"{{{text}}}"
        elif isinstance(value, list):
            text = f"[{','.join(map(count, value))}]"
        else:
            return _json(value)
        texts[id(value)] = text
        counts[text] += 1
        return text

    places: dict[str, int] = {}
    shared: list[Any] = []

    def replaced(value: Any) -> Any:
        if not isinstance(value, (dict, list)):
            return value
        text = texts[id(value)]
        if counts[text] < 2 or len(text) < SHORT:
            return inner(value)
        if text not in places:
            words = inner(value)
            places[text] = len(shared)
            shared.append(words)
        return {"&": places[text]}

    def inner(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: replaced(each) for key, each in value.items()}
        return [replaced(each) for each in value]

    count(value)
    return replaced(value), shared


def drawing(figures: Sequence[Figure]) -> str:
    """The script that draws each figure in the reader's theme, and prints it light."""
    data, templates = {}, {}
    for figure in figures:
        light, dark = (
            json.loads(_json(each.to_plotly_json())) for each in (figure.light, figure.dark)
        )
        # What plotly fills in is the same in all figures, and is said once.
        template = _json(light["layout"].pop("template", {}))
        dark["layout"].pop("template", {})
        data[figure.slug] = {"light": light, "dark": difference(light, dark)}
        templates[template] = figure.slug
    assert len(templates) < 2, "one template for all figures"
    own, shared = said_once(data)
    constants = {
        "FIGURES": {slug: own[slug] for slug in data} if data else {},
        "SHARED": shared,
    }
    lines = [f"const {name} = {_quiet(_json(value))};" for name, value in constants.items()]
    lines.append(f"const TEMPLATE = {_quiet(next(iter(templates), '{}'))};")
    script = files("workbench.report").joinpath("templates", "draw.js").read_text(encoding="utf-8")
    return "\n".join([*lines, script])


# Made once: it writes each of some fifty thousand values by itself.
_ENCODER = PlotlyJSONEncoder(separators=(",", ":"), sort_keys=True, ensure_ascii=False)


def _json(value: Any) -> str:
    return _ENCODER.encode(value)


def _quiet(text: str) -> str:
    """JSON in which HTML reads neither the end of a script nor a comment."""
    return text.replace("</", "<\\/").replace("<!", "\\u003c!")
