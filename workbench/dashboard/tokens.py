"""|V| read as images or as minutes of video, by a vision front end's own arithmetic."""

from typing import NamedTuple

import streamlit as st

from workbench.figures import TOKENS, Reading
from workbench.telling.text import markdown
from workbench.visual import VISIONS, FrontEnd
from workbench.visual.tokens import (
    default_vision,
    front_end_of,
    parse_resolution,
    tokens_of_image,
    tokens_of_video,
)
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.units import plural

RESOLUTION = "1344x896"
MOST_MINUTES = 100_000
"""Ten weeks: beyond any cell's |V|."""


class Eye(NamedTuple):
    """A front end and what it looks at."""

    front: FrontEnd
    width: int
    height: int
    fps: float

    @property
    def vision(self) -> str:
        """The front end's name."""
        return self.front.name

    @property
    def per_image(self) -> int:
        """Tokens of one image."""
        return tokens_of_image(self.front, self.width, self.height)

    def of_minutes(self, minutes: float) -> int:
        """Tokens of so many minutes of video."""
        frames = max(1, round(minutes * 60 * self.fps))
        return tokens_of_video(self.front, self.width, self.height, frames)

    @property
    def per_minute(self) -> float:
        """Tokens of a minute of video: of an hour's, in which what is rounded hardly counts."""
        return self.of_minutes(60) / 60

    def images_reading(self) -> Reading:
        """The axis in images."""
        return Reading(f"images ({self.vision}, {self.per_image:,} tokens each)", self.per_image)

    def video_reading(self) -> Reading:
        """The axis in minutes of video."""
        words = f"minutes of video ({self.vision}, {self.fps:g} fps)"
        return Reading(words, self.per_minute)

    def said(self, num_visual: int) -> str:
        """'197 images, or 12.2 min of video at 1 fps'."""
        images, minutes = num_visual // self.per_image, num_visual / self.per_minute
        length = f"{minutes / 60:,.1f} h" if minutes >= 120 else f"{minutes:,.1f} min"
        return f"{plural(images, 'image')}, or {length} of video at {self.fps:g} fps"


def eye(model: str, with_fps: bool = True) -> Eye | None:
    """The controls of a front end; None, and one line, where a resolution makes no sense."""
    names = sorted(VISIONS)
    try:
        own: str | None = default_vision(model, offline=True)
    except RequestError:
        own = None  # Nobody knows how this model sees: somebody has to say.
    first = None if own is None else names.index(own)
    vision = st.selectbox(
        "Vision front end",
        names,
        index=first,
        key="vision",
        bind="query-params",
        placeholder="not known for this model",
    )
    if vision is None:
        st.caption("How this model prepares images is not known: choose a vision front end.")
        return None
    resolution = st.text_input(
        "Resolution",
        RESOLUTION,
        key="resolution",
        bind="query-params",
        max_chars=16,
        help="WIDTHxHEIGHT in pixels",
    )
    fps = 1.0
    if with_fps:
        fps = st.number_input(
            "Frames a second", 0.01, 120.0, 1.0, key="fps", bind="query-params", format="%g"
        )
    try:
        width, height = parse_resolution(str(resolution or RESOLUTION))
        front = VISIONS[vision] if own is None else front_end_of(model, vision, offline=True)
    except RequestError as error:
        st.error(markdown(error))
        return None
    return Eye(front, width, height, float(fps or 1.0))


READINGS = ("tokens", "images", "minutes of video")


def reading(kind: str, seen: Eye | None) -> Reading:
    """The axis of |V| that was picked."""
    if seen is None or kind == READINGS[0]:
        return TOKENS
    return seen.images_reading() if kind == READINGS[1] else seen.video_reading()
