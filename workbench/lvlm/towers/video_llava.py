"""Video-LLaVA's two towers and its projector: LLaVA 1.5's, one for images and one for frames.

Both are CLIP L/14 of one configuration. A cell shows images or frames: the other tower is held,
but neither run nor trained. A frame keeps its class token, which an image drops. |V| without files
stands for images, or for frames where only these make so many tokens.
"""

from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from workbench.lvlm.towers import TOWERS, Grid, Serves, finish, implementation
from workbench.lvlm.towers.llava import Llava
from workbench.lvlm.towers.squares import Rows

if TYPE_CHECKING:
    from workbench.lvlm.context import Context

NAMES = ("image_tower", "video_tower")
"""transformers' words for the two, for images and for frames."""


class OneOfTwo(Rows):
    """The rows of one tower, beside another that is held and not run."""

    def __init__(self, tower: Any, held: nn.Module, depths: tuple[int, ...], dropped: int) -> None:
        super().__init__(tower, depths, dropped)
        held.requires_grad_(False)
        self.held = held


class VideoLlava(Llava):
    """A frame is a grid with seconds, whose rows all stay."""

    serves: ClassVar[Serves] = {"video_llava": ("clip_vision_model",)}
    front_end = "video-llava"

    @cached_property
    def frame(self) -> Grid:
        """One frame of a video."""
        return Grid(1, 1, self.side**2 + self.class_token, 1.0)

    def grids(self, num_visual: int) -> tuple[Grid, ...]:
        frames, rest = divmod(num_visual, self.tokens(self.frame))
        if num_visual % self.tokens_each and not rest:
            return (self.frame,) * frames
        return super().grids(num_visual)

    def of_video(
        self, width: int, height: int, num_frames: int, fps: float
    ) -> tuple[tuple[Grid, ...], ...]:
        return ((self.frame._replace(seconds=1 / fps),),) * num_frames

    def build(
        self, context: "Context", grids: tuple[Grid, ...], adapter: bool
    ) -> tuple[nn.Module, nn.Module | None]:
        from transformers import CLIPVisionModel

        self.config._attn_implementation = implementation(context)
        towers: list[Any] = []
        for name in NAMES:
            tower: Any = context.create(lambda: CLIPVisionModel(self.config))
            places = torch.arange(self.side**2 + self.class_token, device=context.device)
            # The one buffer of a tower: not a parameter, so ``create`` left it without values.
            tower.embeddings.position_ids = places[None]
            context.weigh_component(name.replace("_", " "), tower, f"{name}.", "clip_vision_model")
            finish(tower, context)
            towers.append(tower)
        frames = bool(grids) and grids[0].seconds is not None
        shown, held = reversed(towers) if frames else towers
        rows = OneOfTwo(shown, held, self.depths, 0 if frames else self.dropped)
        return rows, self.adapter(context)

    @property
    def flags(self) -> list[str]:
        return [
            *super().flags,
            "tower: images go through one tower and frames through another; the one whose kind a "
            "cell does not show is held, neither run nor trained",
        ]


TOWERS.add("video_llava", VideoLlava)
