"""Vision front ends: how many visual tokens an image or a sampled frame becomes. Arithmetic only.

One front end a file; a new file in this package is found by itself. Its fields are its settings:
the published ones, until the files beside a checkpoint or a request's limits say otherwise.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Self

from workbench.visual.files import ImageFiles
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.registry import Registry

VISIONS: "Registry[FrontEnd]" = Registry("vision front end", __name__)
TEXT = "siglip"
"""The front end of text models, the paper's."""
PUBLISHED = "published"
"""The origin of a setting that neither a file nor a request gave; ``source`` says where."""


@dataclass(frozen=True)
class Limits:
    """What a request may ask of a front end; None leaves it to the checkpoint."""

    min_pixels: int | None = None
    max_pixels: int | None = None
    max_frames: int | None = None
    max_video_tokens: int | None = None
    pan_and_scan: bool | None = None

    def asked(self) -> dict[str, int | bool]:
        """Those that are given."""
        return {f.name: v for f in fields(self) if (v := getattr(self, f.name)) is not None}


MOST = {"max_frames": 10**7}
"""The largest limits that can be asked; others up to 10**12."""


@dataclass(frozen=True)
class FrontEnd(ABC):
    """The preprocessing of one vision tower, in pixels and tokens."""

    source: ClassVar[str]
    """Where the published numbers come from."""
    models: ClassVar[tuple[str, ...]] = ()
    """Beginnings of the catalogue's model names that use this front end unless told otherwise."""
    of_models: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Published settings of some of these, by the beginnings of their names, where they differ."""
    resizes: ClassVar[bool] = False
    """Whether its processor resizes images whatever a file says of that (``do_resize``)."""
    max_frames: int | None = None
    """The most frames that are sampled of a video."""
    processor_fps: float | None = None
    """Frames a second that a checkpoint's own video processor samples, where its file says so.
    What a request asks for, or its default, is sampled instead."""
    origins: Mapping[str, str] = field(default_factory=dict, hash=False, compare=False)
    """Which file or option gave a setting; others are published."""

    def serves(self, config: Mapping[str, Any]) -> bool:
        """Whether a checkpoint with this config.json prepares its images so."""
        return False

    def read(self, files: ImageFiles) -> None:  # noqa: B027 - one without such files reads nothing
        """Take this front end's settings from a checkpoint's files."""

    def of_files(
        self, config: Mapping[str, Any], files: Mapping[str, Mapping[str, Any]], model: str
    ) -> Self:
        """With the settings of a checkpoint: its config.json and the files beside it.

        Raises RequestError that names file, field and value where one makes no sense.
        """
        stated = ImageFiles(config, files, model, self.resizes)
        self.read(stated)
        if stated.videos is not None:
            file, fields = stated.videos
            stated.take("processor_fps", fields.get("fps"), file, 0.001)
        origins = {**self.origins, **{name: origin for name, (_, origin) in stated.taken.items()}}
        values = {name: value for name, (value, _) in stated.taken.items()}
        return replace(self, **values, origins=origins)

    def of_model(self, model: str) -> Self:
        """With the published settings of a model of the catalogue."""
        word = model.lower()
        names = [name for name in self.of_models if word.startswith(name)]
        return replace(self, **self.of_models[max(names, key=len)]) if names else self

    def asked(self, limits: Limits) -> Self:
        """With a request's limits; RequestError for one that this front end does not have."""
        changes = {}
        least, most_pixels = limits.min_pixels, limits.max_pixels
        if least is not None and most_pixels is not None and least > most_pixels:
            raise RequestError(f"min_pixels {least:,}: more than max_pixels {most_pixels:,}")
        for name, value in limits.asked().items():
            most = MOST.get(name, 10**12)
            if not isinstance(value, bool) and not 1 <= value <= most:
                raise RequestError(f"{name} {value}: a whole number from 1 to {most:,}")
            change = self.changes(name, value)
            if change is None:
                raise RequestError(f"{name} {value}: {self.name} has no such limit")
            changes.update(change)
        origins = {**self.origins, **dict.fromkeys(changes, "the request")}
        return replace(self, **changes, origins=origins)

    def changes(self, limit: str, value: int) -> dict[str, Any] | None:
        """The settings that a limit stands for; None where there is no such limit."""
        return {limit: value} if limit == "max_frames" else None

    @property
    def name(self) -> str:
        """Its name in the registry."""
        return next(name for name, end in VISIONS.items() if type(end) is type(self))

    def settings(self) -> dict[str, Any]:
        """Every setting by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "origins"}

    def document(self) -> dict[str, Any]:
        """Settings and where each comes from, JSON-ready."""
        settings = {name: value for name, value in self.settings().items() if value is not None}
        return {
            "limits": settings,
            "limits_from": {name: self.origins.get(name, PUBLISHED) for name in settings},
        }

    @abstractmethod
    def tokens_of_image(self, width: int, height: int) -> int:
        """Visual tokens of one image of ``width`` × ``height`` pixels, both at least 1."""

    def tokens_of_images(self, sizes: Sequence[tuple[int, int]]) -> list[int]:
        """Visual tokens of each image of a sample that shows images of these sizes."""
        return [self.tokens_of_image(width, height) for width, height in sizes]

    def markers_of_image(self, width: int, height: int) -> int:
        """Text tokens that the model's processor puts around an image's and between them."""
        return 0

    def tokens_of_step(self, width: int, height: int, num_frames: int = 1) -> int:
        """Tokens of what the tower takes of a video at once: a frame, unless it merges several.

        ``num_frames`` are sampled of the video, which may have a budget that they share.
        """
        return self.tokens_of_image(width, height)

    def steps(self, num_frames: int) -> int:
        """How many such steps ``num_frames`` sampled frames make."""
        return num_frames

    def tokens_of_video(self, width: int, height: int, num_frames: int) -> int:
        """Visual tokens of a video from which ``num_frames`` frames were sampled."""
        return self.steps(num_frames) * self.tokens_of_step(width, height, num_frames)

    def sampled(self, total_frames: int, native_fps: float, fps: float) -> int:
        """Frames sampled at ``fps`` from a clip: one at 0 s, 1/fps s, … before its end."""
        frames = math.ceil(round(total_frames / native_fps * fps, 6))
        return max(1, min(frames, total_frames, self.max_frames or total_frames))

    def notes(self, width: int, height: int, num_frames: int) -> list[str]:
        """What a reader of a video's tokens should know; no frames are an image's."""
        return []


def vision_of(model: str, config: Mapping[str, Any]) -> str:
    """The front end of a checkpoint with this config.json.

    Raises RequestError that lists the front ends there are where none is known to be its own.
    """
    served = [name for name, front_end in VISIONS.items() if front_end.serves(config)]
    if not set(served) - {TEXT} and config.get("vision_config") is None:
        towers: tuple[dict[str, str], ...] = ({}, {"model_type": "siglip_vision_model"})
        seeing = [{**config, "vision_config": tower} for tower in towers]
        others = [end for name, end in VISIONS.items() if name != TEXT]
        if any(end.serves(one) for end in others for one in seeing):
            raise RequestError(
                f"model {model!r}: config.json has no vision_config, the section in which "
                f"model_type {config.get('model_type')!r:.60} states its vision tower; write it, "
                "or choose a front end with --vision"
            )
    if served:
        return served[0]
    tower = config.get("vision_config")
    kind = tower.get("model_type") if isinstance(tower, Mapping) else None
    kind_words = "" if kind is None else f" with a {kind!r:.60}"
    raise RequestError(
        f"model {model!r}: how model_type {config.get('model_type')!r:.60}{kind_words} prepares "
        f"images is not known; the front ends are {', '.join(sorted(VISIONS))}: choose one "
        "with --vision"
    )
