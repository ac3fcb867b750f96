"""Figures to PNG files through kaleido and a Chromium that is there already."""

import asyncio
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import plotly.graph_objects as go

from workbench.figures import LIGHT

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
HINT = (
    "no Chromium, so the report has no PNG figures; on Debian and Ubuntu: apt-get install chromium"
)
WIDTH, HEIGHT, SCALE = 1400, 500, 2


def browser() -> str | None:
    """The Chromium to draw with: ``BROWSER_PATH``, or the first on the path; None without one."""
    named = os.environ.get("BROWSER_PATH")
    if named:
        return named if os.access(named, os.X_OK) else None
    return next((found for name in BROWSERS if (found := shutil.which(name))), None)


def write_pngs(figures: Mapping[Path, go.Figure], chromium: str) -> None:
    """Write every figure as PNG, on white, with one browser for all of them."""
    asyncio.run(_write(figures, chromium))


async def _write(figures: Mapping[Path, go.Figure], chromium: str) -> None:
    import kaleido

    # mathjax=False: kaleido would load it from outside, and no figure has a formula.
    async with kaleido.Kaleido(n=1, mathjax=False, path=chromium) as painter:
        for path, figure in figures.items():
            on_white = go.Figure(figure).update_layout(paper_bgcolor=LIGHT.paper)
            size = {"width": WIDTH, "height": HEIGHT, "scale": SCALE}
            await painter.write_fig(on_white, path=path, opts=size)
