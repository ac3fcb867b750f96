"""What towers have in common whose input is squares of one size: whole images, tiles or frames."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from workbench.lvlm.towers import Grid, Tower
from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from PIL.Image import Image


class Squares(Tower):
    """A plain transformer over the patches of every square, each seeing those of its own."""

    class_token = 0
    """Rows of the tower that are no patches."""
    depth: int
    """Layers that run."""
    mlp_matrices = 2
    """Matrices of an MLP of the tower: 3 where one of them is a gate."""

    @property
    def side(self) -> int:
        """Patches a side of a square."""
        return first(self.config.image_size) // first(self.config.patch_size)

    @property
    def mlp_width(self) -> int:
        """Width between the two layers of an MLP of the tower."""
        return int(self.config.intermediate_size)

    def squares(self, grid: Grid) -> int:
        """Squares that an image or a video is to the tower."""
        return grid.steps

    def _squares(self, grids: Iterable[Grid]) -> int:
        return sum(map(self.squares, grids))

    def pixels(self, batch: int, grids: tuple[Grid, ...]) -> tuple[int, ...]:
        edge = first(self.config.image_size)
        return batch * self._squares(grids), self.config.num_channels, edge, edge

    def patch_flops(self, grids: tuple[Grid, ...]) -> int:
        pixels = self.config.num_channels * first(self.config.patch_size) ** 2
        return 2 * self._squares(grids) * self.side**2 * self.config.hidden_size * pixels

    def tower_flops(self, grids: tuple[Grid, ...]) -> int:
        width, mlp = self.config.hidden_size, self.mlp_width
        rows = self.side**2 + self.class_token
        row = 2 * (4 * width**2 + self.mlp_matrices * width * mlp) + 4 * rows * width
        return self.patch_flops(grids) + self.depth * self._squares(grids) * rows * row

    def of_image(self, width: int, height: int) -> tuple[Grid, ...]:
        return (self.image,)

    def processor(self, frames: bool = False) -> Any:
        """transformers' image processor under the settings of the front end, for images or for the
        frames of a video.
        """
        raise NotImplementedError

    def preprocess(self, images: "Iterable[Image]", num_frames: int) -> Tensor:
        """The squares of all images, or of the frames of a video, [N, C, H, W]."""
        processor = self.processor(bool(num_frames))
        batches = (processor(i, return_tensors="pt")["pixel_values"] for i in images)
        return torch.cat([pixels.flatten(0, -4) for pixels in batches])


class Tiles(Squares):
    """An image is as many squares as its front end makes tiles, a frame of a video is one."""

    eye: Any
    """The front end, whose ``num_tiles`` takes a width and a height."""

    def of_image(self, width: int, height: int) -> tuple[Grid, ...]:
        return (self.image,) * self.eye.num_tiles(width, height)

    def of_video(
        self, width: int, height: int, num_frames: int, fps: float
    ) -> tuple[tuple[Grid, ...], ...]:
        return ((self.image,),) * num_frames


def first(size: Any) -> int:
    """The side of a square that a configuration gives as a number or as a pair."""
    return int(size if isinstance(size, int) else size[0])


def idle_layers(depth: int, layers: int) -> list[str]:
    """The flag of a tower of so many layers whose first ``depth`` alone run; none where all do."""
    if depth == layers:
        return []
    return [
        f"tower: the last {layers - depth} of its {layers} layers feed no token and are held, not "
        "run; transformers runs them"
    ]


def depth_of(model: str, tower: str, chosen: Any, layers: int) -> int:
    """How many layers run where ``chosen`` is the hidden state that is taken, -1 the last.

    Raises RequestError for a list of layers and for one that the tower does not have.
    """
    depth = 0
    if isinstance(chosen, int):
        depth = chosen if chosen >= 0 else layers + 1 + chosen
    if not 1 <= depth <= layers:
        raise RequestError(
            f"model {model!r}: vision_feature_layer {chosen!r:.60}: the tower of {tower} takes "
            f"one of its {layers} layers"
        )
    return depth


def check_projector(model: str, whole: Any) -> None:
    """Raise RequestError for a projector's activation that transformers does not have."""
    from transformers.activations import ACT2FN

    act = whole.projector_hidden_act
    if not isinstance(act, str) or act not in ACT2FN:
        raise RequestError(
            f"model {model!r}: projector_hidden_act {act!r:.60}: an activation of transformers, "
            "such as 'gelu'"
        )


class Rows(nn.Module):
    """The hidden states of one layer, without the rows that the strategy drops; of several side
    by side.
    """

    def __init__(self, tower: Any, depths: tuple[int, ...], dropped: int) -> None:
        super().__init__()
        self.tower, self.depths, self.dropped = tower, depths, dropped
        layers = [*tower.encoder.layers]
        self.run = nn.ModuleList(layers[: max(depths)])
        tower.requires_grad_(False)  # What is left of it but its embeddings feeds no token.
        for module in (self.run, tower.embeddings, getattr(tower, "pre_layrnorm", None)):
            if module is not None:
                module.requires_grad_(True)

    def forward(self, pixels: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, rows, width]."""
        rows = self.rows(pixels)
        return rows[0] if len(rows) == 1 else torch.cat(rows, -1)

    def rows(self, pixels: Tensor) -> list[Tensor]:
        """[N, 3, H, W] -> [N, rows, width] of each layer that is taken."""
        hidden = self.tower.embeddings(pixels)
        norm = getattr(self.tower, "pre_layrnorm", None)
        hidden = hidden if norm is None else norm(hidden)
        states = {}
        for depth, layer in enumerate(self.run, 1):
            hidden = layer(hidden, attention_mask=None)
            if depth in self.depths:
                states[depth] = hidden[:, self.dropped :]
        return [states[depth] for depth in self.depths]
