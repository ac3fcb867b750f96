"""Qwen3-VL's own tower: learned positions resampled to the image, whole frames, deepstack.

Features of some blocks are merged to tokens of their own, which the decoder adds to its visual
rows after its first layers (DeepStack, arXiv 2406.04334). Their mergers belong to the adapter.
"""

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from workbench.lvlm.kernels.modelled import tracing
from workbench.lvlm.towers import TOWERS, Grid, Serves
from workbench.lvlm.towers.qwen_vl import QwenTower
from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from workbench.lvlm.context import Context
    from workbench.lvlm.models import Resolved

NEIGHBOURS = 4
"""Learned positions around a patch, of which its own is the weighted mean."""


class Places(nn.Module):
    """The learned positions of every patch, between those of the square grid that is learned."""

    def __init__(self, table: nn.Module, nearest: Tensor, weights: Tensor) -> None:
        super().__init__()
        self.table, self.nearest, self.weights = table, nearest, weights

    def forward(self) -> Tensor:
        """-> [patches, width], in float32 where the tower is narrower, as transformers has it."""
        return (self.table(self.nearest) * self.weights[:, :, None]).sum(1)


class Blocks(nn.Module):
    """Patch embedding, positions and blocks; some blocks' features leave beside the last ones."""

    def __init__(
        self, visual: Any, places: Places, tables: tuple[Tensor, Tensor], chosen: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.patch_embed, self.blocks = visual.patch_embed, visual.blocks
        self.places, self.tables, self.chosen = places, tables, chosen

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """[patches, pixels of a patch] -> [patches, width] of the last block, and the chosen."""
        hidden: Tensor = self.patch_embed(pixels)
        hidden = hidden + self.places().to(hidden.dtype)
        features: dict[int, Tensor] = {}
        for index, block in enumerate(self.blocks):
            hidden = block(hidden, cu_seqlens=None, position_embeddings=self.tables)
            if index in self.chosen:
                features[index] = hidden
        return hidden, *(features[index] for index in self.chosen)


class Plain(nn.Module):
    """The same without deepstack: the last block's features alone leave."""

    def __init__(self, visual: Any, places: Places, tables: tuple[Tensor, Tensor]) -> None:
        super().__init__()
        self.patch_embed, self.blocks = visual.patch_embed, visual.blocks
        self.places, self.tables = places, tables

    def forward(self, pixels: Tensor) -> Tensor:
        """[patches, pixels of a patch] -> [patches, width]."""
        hidden: Tensor = self.patch_embed(pixels)
        hidden = hidden + self.places().to(hidden.dtype)
        for block in self.blocks:
            hidden = block(hidden, cu_seqlens=None, position_embeddings=self.tables)
        return hidden


class Mergers(nn.Module):
    """The patch merger, and one for each of the features that the decoder adds."""

    def __init__(self, merger: nn.Module, deepstack: nn.ModuleList) -> None:
        super().__init__()
        self.merger, self.deepstack = merger, deepstack

    def forward(self, features: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """[patches, width] each -> [tokens, D] each: the embeddings, and what is added."""
        last, *others = features
        deepstack = (merge(x) for merge, x in zip(self.deepstack, others, strict=True))
        return self.merger(last), *deepstack


class Qwen3VL(QwenTower):
    """Images of any size in whole tokens of 32 × 32 pixels; each pair of frames is an image."""

    serves: ClassVar[Serves] = {"qwen3_vl": ("qwen3_vl_vision",)}
    front_end = "qwen3-vl"
    config_class = "Qwen3VLVisionConfig"
    model_class = "Qwen3VLVisionModel"

    def __init__(self, model: "Resolved") -> None:
        super().__init__(model)
        deepstack, layers = self.deepstack(), model.config.num_hidden_layers
        right = (
            isinstance(deepstack, (list, tuple))
            and all(isinstance(i, int) and 0 <= i < self.config.depth for i in deepstack)
            and len(set(deepstack)) == len(deepstack) <= layers
        )
        if not right:
            raise RequestError(
                f"model {model.name!r}: deepstack_visual_indexes {deepstack!r:.60}: different "
                f"blocks of the tower, 0 to {self.config.depth - 1}, at most one for each of the "
                f"{layers} layers"
            )
        self.chosen = tuple(deepstack)
        self.stacked = tuple(range(len(self.chosen)))

    def deepstack(self) -> Any:
        """The blocks whose features the decoder adds, as the config says."""
        return self.config.deepstack_visual_indexes

    def normalised(self) -> dict[str, Any]:
        """As the published preprocessor_config.json has it."""
        return {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}

    def mlp_weights(self) -> int:
        return 2 * self.width * self.config.intermediate_size

    def modules(
        self, visual: Any, context: "Context", grids: tuple[Grid, ...]
    ) -> tuple[nn.Module, nn.Module]:
        nearest, weights = self._between(visual, context, grids)
        cos, sin = self.tables(visual, context, grids)
        for constant in (nearest, weights, cos, sin):
            context.keep(constant)
        places = Places(visual.pos_embed, nearest, weights)
        if not self.chosen:
            return Plain(visual, places, (cos, sin)), visual.merger
        tower = Blocks(visual, places, (cos, sin), self.chosen)
        return tower, Mergers(visual.merger, visual.deepstack_merger_list)

    def _between(
        self, visual: Any, context: "Context", grids: tuple[Grid, ...]
    ) -> tuple[Tensor, Tensor]:
        """Learned positions around each patch, and their weights: [patches, 4] each."""
        shape = sum(grid.patches for grid in grids), NEIGHBOURS
        if tracing(context.device) or not grids:
            nearest = torch.empty(shape, dtype=torch.int64, device=context.device)
            return nearest, torch.empty(shape, dtype=torch.float32, device=context.device)
        from transformers.vision_utils import get_vision_interpolation_indices_and_weights

        sizes = torch.tensor([grid[:3] for grid in grids], dtype=torch.int64).view(-1, 3)
        nearest, weights = get_vision_interpolation_indices_and_weights(
            sizes,
            num_grid_per_side=visual.num_grid_per_side,
            mode=visual.interpolation_mode,
            align_corners=visual.interpolation_align_corners,
            spatial_merge_size=self.merge,
        )
        return nearest.to(context.device), weights.to(context.device)

    def of_video(
        self, width: int, height: int, num_frames: int, fps: float
    ) -> tuple[tuple[Grid, ...], ...]:
        """An image for each pair of frames, between which time stamps may stand as text."""
        frame = self.grid_of(*self.eye.resized_frame(width, height, num_frames))
        return ((frame,),) * self.eye.steps(num_frames)

    def adapter_flops(self, grids: tuple[Grid, ...]) -> int:
        return (1 + len(self.stacked)) * super().adapter_flops(grids)


TOWERS.add("qwen3_vl", Qwen3VL)
