"""The settings of a checkpoint's image and video processors, taken from the files beside it."""

import math
from collections.abc import Mapping
from typing import Any

from workbench.vocabulary.errors import RequestError

MOST = 10**12
CONFIG, IMAGES, VIDEOS, BOTH = (
    "config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "processor_config.json",
)


def tower_kind(config: Mapping[str, Any], unsaid: str) -> object:
    """The model type of a config.json's tower; None where it has no section for one.

    ``unsaid`` is what transformers takes where the section leaves the type out.
    """
    tower = config.get("vision_config")
    return tower.get("model_type", unsaid) if isinstance(tower, Mapping) else None


class ImageFiles:
    """What the files say, and what a front end has taken of it so far.

    Files go by transformers' order: the section of processor_config.json, else the file of images
    or of video, and for video without one that of images.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        files: Mapping[str, Mapping[str, Any]],
        model: str,
        resizes: bool = False,
    ) -> None:
        """``resizes`` says that the processor resizes whatever its file says of that."""
        self.config, self.model, self.resizes = config, model, resizes
        self.taken: dict[str, tuple[Any, str]] = {}
        """By setting: its value, and the file."""
        both = self.both = files.get(BOTH, {})
        """The processor's own settings, and its sections."""
        self.images = self._section(files, both.get("image_processor"), (IMAGES,))
        self.videos = self._section(files, both.get("video_processor"), (VIDEOS, IMAGES))

    def _section(
        self, files: Mapping[str, Mapping[str, Any]], nested: object, names: tuple[str, ...]
    ) -> tuple[str, Mapping[str, Any]] | None:
        name = next((name for name in names if name in files), None)
        if isinstance(nested, Mapping):
            name, fields = BOTH, nested
        elif name is not None:
            fields = files[name]
        else:
            return None
        resizes = fields.get("do_resize")
        if resizes not in (None, True) and not self.resizes:
            raise RequestError(
                f"model {self.model!r}: {name}: do_resize {str(resizes).lower():.60}: only true "
                "is known, for an image of any size has to suit the tower"
            )
        return name, fields

    @property
    def tower(self) -> Mapping[str, Any]:
        """The vision_config of config.json, empty where there is none."""
        section = self.config.get("vision_config")
        return section if isinstance(section, Mapping) else {}

    def take(self, setting: str, value: object, file: str, least: float = 1) -> bool:
        """Take a number, where there is one; RequestError where it makes no sense."""
        if value is None:
            return False
        whole = isinstance(least, int)
        right = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
        if not right or not least <= float(value) <= MOST or math.isnan(float(value)):  # type: ignore[arg-type]
            kind = "a whole number" if whole else "a number"
            raise RequestError(
                f"model {self.model!r}: {file}: {setting} {value!r:.60}: {kind} from {least:g}"
            )
        earlier = self.taken.get(setting)
        if earlier is not None and earlier[1] == CONFIG and earlier[0] != value:
            raise RequestError(
                f"model {self.model!r}: {file}: {setting} {value}, but {CONFIG} says "
                f"{earlier[0]}: the tower cannot take such images"
            )
        self.taken[setting] = value, file
        return True

    def whole_patches(self, image_size: int, patch_size: int) -> None:
        """Raise RequestError for an image that is smaller than one of its patches."""
        size = self.taken.get("image_size", (image_size, CONFIG))
        patch = self.taken.get("patch_size", (patch_size, CONFIG))
        if size[0] < patch[0]:
            raise RequestError(
                f"model {self.model!r}: {size[1]}: image_size {size[0]}: smaller than patch_size "
                f"{patch[0]}"
            )

    def side(self, setting: str, value: object, file: str) -> bool:
        """The side of a square in pixels, given as a number, a pair, or height and width."""
        if isinstance(value, Mapping):
            edges = [value[k] for k in ("height", "width") if k in value]
            if not edges and "shortest_edge" not in value:
                raise RequestError(
                    f"model {self.model!r}: {file}: {setting} {dict(value)!r:.60}: a number, a "
                    "pair, or height and width"
                )
            value = edges or value["shortest_edge"]
        if isinstance(value, list):
            if len(value) != 2 or value[0] != value[1]:
                raise RequestError(
                    f"model {self.model!r}: {file}: {setting} {value!r:.60}: only squares are "
                    "known"
                )
            value = value[0]
        return self.take(setting, value, file)
