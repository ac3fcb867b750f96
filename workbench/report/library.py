"""The drawing library of a report's page: plotly.js for cartesian figures, kept in the package.

It is the npm package that ``plotly_js/source.json`` names, a third of the size of the whole
library; nothing is fetched when a report is written. Its version is that of plotly's own.
"""

import json
from importlib.resources import files


def plotly_js() -> str:
    """The script."""
    return _file("plotly-cartesian.min.js")


def source() -> dict[str, str]:
    """Its package, version, licence and SHA-256."""
    return dict(json.loads(_file("source.json")))


def _file(name: str) -> str:
    return files("workbench.report").joinpath("plotly_js", name).read_text(encoding="utf-8")
