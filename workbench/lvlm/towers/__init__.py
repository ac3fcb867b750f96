"""Vision towers by model family: one file each. Images become visual embeddings.

A tower is transformers' own, under the configuration of the model's checkpoint where the model is
a folder or a hub id of a vision-language model, else under the published one. Families without a
tower of their own take the paper's SigLIP and adapter.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

from workbench.errors import RequestError
from workbench.lvlm.layout import Layout
from workbench.registry import Registry

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import Tensor, nn

    from workbench.lvlm.context import Context
    from workbench.lvlm.models import Resolved

TOWERS: "Registry[Callable[[Resolved], Tower]]" = Registry("vision tower", __name__)
"""By the name of the model family; ``siglip`` serves all others."""


class Grid(NamedTuple):
    """Patches of one image, or of one video: steps in time, rows, columns."""

    steps: int
    rows: int
    columns: int
    seconds: float | None = None
    """Seconds between the steps of a video; None for an image."""

    @property
    def patches(self) -> int:
        return prod(self[:3])


class Tower(ABC):
    """The tower and adapter of one model: which images it takes, what it runs, what it costs.

    ``grids`` are those of one sample; all samples of a batch are alike. FLOPs are of a forward of
    one sample.
    """

    front_end: str
    """The vision front end whose arithmetic turns the sizes of files into tokens."""
    config: Any
    """transformers' configuration of the tower."""
    image: Grid
    """The image that stands for |V| where no file is given."""
    patches_a_token: int = 1

    def tokens(self, grid: Grid) -> int:
        """Visual tokens of an image or a video."""
        return grid.patches // self.patches_a_token

    @property
    def tokens_each(self) -> int:
        """Visual tokens of the image that stands for |V|."""
        return self.tokens(self.image)

    def grids(self, num_visual: int) -> tuple[Grid, ...]:
        """The images that |V| stands for; raises RequestError with the nearest possible |V|."""
        count, rest = divmod(num_visual, self.tokens_each)
        if rest:
            below = count * self.tokens_each
            raise RequestError(
                f"num_visual {num_visual}: scope lvlm makes {self.tokens_each} tokens an image; "
                f"the nearest are {below} and {below + self.tokens_each}"
            )
        return (self.image,) * count

    @abstractmethod
    def build(
        self, context: "Context", grids: tuple[Grid, ...], text_only: bool
    ) -> "tuple[nn.Module, nn.Module | None]":
        """Tower and adapter: pixels -> features -> embeddings, reshapeable to [B, V, W].

        ``text_only`` leaves out what maps to the decoder's width (HiMix). Raises Unsupported where
        the tower cannot do without.
        """

    @abstractmethod
    def pixels(self, batch: int, grids: tuple[Grid, ...]) -> tuple[int, ...]:
        """Shape of the tower's input for a batch."""

    @abstractmethod
    def patch_flops(self, grids: tuple[Grid, ...]) -> int:
        """Matmul FLOPs of the patch embedding, whose input, the pixels, needs no gradient."""

    @abstractmethod
    def tower_flops(self, grids: tuple[Grid, ...]) -> int:
        """Matmul FLOPs of the tower, patch embedding included."""

    @abstractmethod
    def adapter_flops(self, grids: tuple[Grid, ...]) -> int:
        """Matmul FLOPs of the adapter."""

    @abstractmethod
    def of_image(self, width: int, height: int) -> tuple[Grid, ...]:
        """What an image of that many pixels becomes: itself and, for some towers, crops."""

    def of_video(
        self, width: int, height: int, num_frames: int, fps: float
    ) -> tuple[tuple[Grid, ...], ...]:
        """What frames sampled at ``fps`` become: an image each."""
        return (self.of_image(width, height),) * num_frames

    @abstractmethod
    def preprocess(self, images: "Iterable[Image]", video: bool) -> "Tensor":
        """The input of one sample from its images, or from a video's frames, float32."""

    def positions(self, layout: Layout, grids: tuple[Grid, ...]) -> "torch.Tensor | None":
        """Positions of the whole sequence other than indices, int64 [3, S]; None for indices."""
        return None


def tower_of(model: "Resolved") -> Tower:
    """The tower of a model."""
    name = next((n for n in TOWERS if model.family.model_type.startswith(n)), "siglip")
    return TOWERS[name](model)


def vision_config(model: "Resolved", model_type: str, published: dict[str, Any]) -> dict[str, Any]:
    """The fields of a tower's configuration: the checkpoint's, where it has that kind of tower."""
    found = getattr(model.whole, "vision_config", None)
    if found is None or found.model_type != model_type:
        return dict(published)
    fields: dict[str, Any] = found.to_dict()
    return fields


def finish(tower: Any, context: "Context") -> None:
    """A tower is checkpointed where the decoder is, and trained where it is."""
    if context.cell.checkpoint:
        # Releases of transformers differ in the name.
        old = "gradient_checkpointing_enable"
        enable = getattr(tower, "activation_checkpointing_enable", None) or getattr(tower, old)
        enable({"use_reentrant": False, "preserve_rng_state": False})
    tower.train(context.cell.pass_ == "train")


def implementation(context: "Context") -> str:
    """transformers' attention for a tower, whose rows see everything: no kernel needs a mask."""
    return "eager" if context.kernel.hf == "eager" else "sdpa"
