"""Idefics2: images of any shape within two edges, 64 tokens each; split, its quarters too."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from workbench.visual import VISIONS, FrontEnd
from workbench.visual.files import BOTH, CONFIG, ImageFiles
from workbench.vocabulary.errors import RequestError


@dataclass(frozen=True)
class Idefics2(FrontEnd):
    """Each image, and each quarter of it, is read by as many latents as there are tokens.

    A frame of a video is an image: it has no rule for them.
    """

    source: ClassVar[str] = (
        "Idefics2ImageProcessor and Idefics2Processor in transformers;"
        " https://huggingface.co/HuggingFaceM4/idefics2-8b config.json and"
        " preprocessor_config.json, which splits images (from memory)"
    )
    models: ClassVar[tuple[str, ...]] = ("idefics2-",)
    of_models: ClassVar[Mapping[str, Mapping[str, Any]]] = {"idefics2-8b": {"splits": True}}

    shortest_edge: int = 378
    longest_edge: int = 980
    latents: int = 64
    """Tokens of an image (resampler_n_latents)."""
    splits: bool = False
    """Whether an image is shown as its four quarters and as a whole (do_image_splitting)."""

    def serves(self, config: Mapping[str, Any]) -> bool:
        return config.get("model_type") == "idefics2" and isinstance(
            config.get("vision_config"), Mapping
        )

    def read(self, files: ImageFiles) -> None:
        perceiver = files.config.get("perceiver_config")
        stated = perceiver if isinstance(perceiver, Mapping) else {}
        latents = stated.get("resampler_n_latents")
        files.take("latents", 64 if latents is None else latents, CONFIG)
        promised = files.both.get("image_seq_len")
        if promised is not None and promised != files.taken["latents"][0]:
            raise RequestError(
                f"model {files.model!r}: {BOTH}: image_seq_len {promised!r:.60}, but the "
                f"resampler of {CONFIG} makes {files.taken['latents'][0]}"
            )
        if files.images is None:
            return
        file, fields = files.images
        size = fields.get("size")
        if size is not None and not (
            isinstance(size, Mapping) and {"shortest_edge", "longest_edge"} <= set(size)
        ):
            raise RequestError(
                f"model {files.model!r}: {file}: size {size!r:.60}: "
                '{"shortest_edge": pixels, "longest_edge": pixels}'
            )
        for edge in ("shortest_edge", "longest_edge"):
            files.take(edge, None if size is None else size[edge], file)
        pads = fields.get("do_pad")
        if pads not in (None, True):
            raise RequestError(
                f"model {files.model!r}: {file}: do_pad {pads!r:.60}: only true is known"
            )
        splits = fields.get("do_image_splitting")
        if isinstance(splits, bool):
            files.taken["splits"] = splits, file
        elif splits is not None:
            raise RequestError(
                f"model {files.model!r}: {file}: do_image_splitting {splits!r:.60}: true or false"
            )

    def views(self, width: int, height: int) -> list[tuple[int, int]]:
        """Widths and heights in pixels of what the tower sees of an image, before padding.

        Raises RequestError for an image that has no quarters.
        """
        if not self.splits:
            return [self.resized(width, height)]
        if min(width, height) < 2:
            raise RequestError(
                f"image of {width}x{height} pixels: it is shown in quarters, and has none"
            )
        widths, heights = ((n // 2, n - n // 2) for n in (width, height))
        quarters = [(w, h) for h in heights for w in widths]
        return [self.resized(*size) for size in (*quarters, (width, height))]

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """Width and height in pixels as its processor resizes them."""
        shape, most, least = width / height, self.longest_edge, self.shortest_edge
        if width >= height and width > most:
            width, height = most, int(most / shape)
        elif height > width and height > most:
            width, height = int(most * shape), most
        return max(width, least), max(height, least)

    def tokens_of_image(self, width: int, height: int) -> int:
        return self.latents * len(self.views(width, height))

    def markers_of_image(self, width: int, height: int) -> int:
        """One before the first and one behind each of its views."""
        return 6 if self.splits else 2


VISIONS.add("idefics2", Idefics2())
