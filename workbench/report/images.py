"""Figures to PNG and SVG files through kaleido and a Chromium that is there already."""

import asyncio
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import plotly.graph_objects as go

from workbench.figures import LIGHT
from workbench.telling.page import Figure

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
HINT = (
    "no Chromium, so the report has no PNG or SVG figures; on Debian and Ubuntu: apt-get install"
    " chromium"
)
FAILED = "the browser {} failed, so the report has no PNG or SVG figures: {}"
SCALE = 2
FORMATS = ("png", "svg")
MOST = 60
"""Figures that are drawn as files: at about a third of a second each, half of a minute."""


class NotDrawn(Exception):
    """The browser did not start, or ended before it had drawn all figures."""


def browser() -> str | None:
    """The Chromium to draw with: ``BROWSER_PATH``, or the first on the path; None without one."""
    configured = os.environ.get("BROWSER_PATH")
    if configured:
        return configured if os.access(configured, os.X_OK) else None
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


def write_images(
    figures: Sequence[Figure],
    folder: Path,
    chromium: str,
    tell: Callable[[int], None] = lambda done: None,
) -> list[Path]:
    """``folder/SLUG.png`` and ``.svg`` of every figure, with one browser for all of them.

    ``tell`` hears how many figures are done. Raises NotDrawn, a line, where the browser fails.
    """
    from choreographer.errors import BrowserClosedError, BrowserFailedError, ChannelClosedError

    try:
        return asyncio.run(_write(figures, folder, chromium, tell))
    except (BrowserFailedError, BrowserClosedError, ChannelClosedError) as error:
        reason = error.args[0] if error.args else type(error).__name__
        raise NotDrawn(FAILED.format(chromium, reason)) from None


async def _write(
    figures: Sequence[Figure], folder: Path, chromium: str, tell: Callable[[int], None]
) -> list[Path]:
    import kaleido

    files = []
    # mathjax=False: kaleido would load it from outside, and no figure has a formula.
    async with kaleido.Kaleido(n=1, mathjax=False, path=chromium) as painter:
        for done, figure in enumerate(figures):
            tell(done)
            on_white = go.Figure(figure.light).update_layout(paper_bgcolor=LIGHT.paper)
            for kind in FORMATS:
                path = folder / f"{figure.slug}.{kind}"
                size = {"width": figure.width, "height": figure.height, "scale": SCALE}
                await painter.write_fig(on_white, path=path, opts={**size, "format": kind})
                files.append(path)
    return files
