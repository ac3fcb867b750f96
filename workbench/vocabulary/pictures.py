"""What a cell shows, files or sizes: part of a request, not of the cell, whose key stays."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any, ClassVar

from pydantic import Field, StringConstraints

from workbench.visual import Limits
from workbench.vocabulary.fields import FILE_PATTERN, SIZE_PATTERN, make_model
from workbench.vocabulary.rules import Rule, Ruled

Limit = Annotated[int, Field(ge=1, le=10**12, strict=True)]
File = Annotated[str, StringConstraints(min_length=1, max_length=4096, pattern=FILE_PATTERN)]
Size = Annotated[str, StringConstraints(pattern=SIZE_PATTERN)]


def _one_kind(pictures: "Pictures") -> str | None:
    kinds = bool(pictures.images), pictures.video is not None, pictures.resolution is not None
    if sum(kinds) == 1:
        return None
    return "image and video: give image files, a video or a resolution, one of the three"


class Pictures(Ruled):
    """What a cell of scope ``lvlm`` shows: files, or random pixels of a size."""

    RULES: ClassVar[tuple[Rule, ...]] = (_one_kind,)

    images: tuple[File, ...] = ()
    video: File | None = None
    fps: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """Frames sampled a second of video."""
    resolution: Size | None = None
    """Without files: the size of each of ``count`` images, or of the frames of a video."""
    count: Annotated[int, Field(ge=1, le=10**9, strict=True)] = 1
    frames: Annotated[int, Field(ge=1, le=10**9, strict=True)] | None = None
    """Sampled frames of a video without a file; None where images are shown."""
    min_pixels: Limit | None = None
    max_pixels: Limit | None = None
    max_frames: Limit | None = None
    max_video_tokens: Limit | None = None
    pan_and_scan: bool | None = None
    """Limits of the front end, in place of the checkpoint's."""

    @property
    def limits(self) -> Limits:
        """What is asked of the front end."""
        return Limits(**{f.name: getattr(self, f.name) for f in fields(Limits)})

    @property
    def has_files(self) -> bool:
        """Whether pixels are read; else they are random."""
        return self.resolution is None


def make_pictures(names: Mapping[str, str] | None = None, /, **fields: Any) -> Pictures:
    """Pictures from field names; RequestError has a line for each wrong value.

    ``names`` are what whoever asks calls a field, where that is another name.
    """

    def name(place: tuple[int | str, ...]) -> str:
        field = str(place[0]) if place else ""
        return (names or {}).get(field, field)

    return make_model(Pictures, fields, name)
