"""Aya Vision's tower and projector: SigLIP over tiles, 2 × 2 patches a token, a gated MLP.

The hidden states of SigLIP's last layer are taken before its last norm, which feeds no token.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from workbench.lvlm.reduce import TokenGrid
from workbench.lvlm.towers import MERGED, TOWERS, Grid, Serves, Tower, finish, implementation
from workbench.lvlm.towers.squares import Rows, Tiles, depth_of, idle_layers
from workbench.visual.aya_vision import AyaVision as FrontEnd
from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from workbench.lvlm.context import Context
    from workbench.lvlm.models import Resolved

KIND = "siglip_vision_model"


class AyaVision(Tiles):
    """A tile and the whole image are images of their own to the tower."""

    serves: ClassVar[Serves] = {"aya_vision": (KIND,)}
    front_end = "aya-vision"
    without_adapter = MERGED
    merges = True

    def __init__(self, model: "Resolved") -> None:
        super().__init__(model)
        self.read_config()
        self.name = model.name
        self.shuffle = self.whole.downsample_factor
        self.patches_a_token = self.shuffle**2
        self.depth = self.depth_taken()
        self.image = Grid(1, self.side, self.side)

    def depth_taken(self) -> int:
        """Layers up to the one whose rows the projector reads."""
        strategy = self.whole.vision_feature_select_strategy
        if strategy != "full":
            raise RequestError(
                f"model {self.name!r}: vision_feature_select_strategy {strategy!r:.60}: full, for "
                "SigLIP has no class token to drop"
            )
        layers = self.config.num_hidden_layers
        return depth_of(self.name, self.front_end, self.whole.vision_feature_layer, layers)

    def token_grid(self, grid: Grid) -> TokenGrid:
        return TokenGrid.of(grid.rows // self.shuffle, grid.columns // self.shuffle)

    @property
    def flags(self) -> list[str]:
        return idle_layers(self.depth, self.config.num_hidden_layers)

    def build(
        self, context: "Context", grids: tuple[Grid, ...], adapter: bool
    ) -> tuple[nn.Module, nn.Module | None]:
        from transformers import SiglipVisionModel

        self.config._attn_implementation = implementation(context)
        tower = context.create(lambda: SiglipVisionModel(self.config))
        # The one buffer of the tower: not a parameter, so ``create`` left it without values.
        places = torch.arange(self.image.patches, device=context.device)
        tower.embeddings.position_ids = places[None]
        context.weigh_component("tower", tower, "vision_tower.", KIND)
        finish(tower, context)
        projection = context.create(lambda: self.projector()(self.whole))
        context.weigh_component("adapter", projection, "multi_modal_projector.", KIND)
        return self.rows(tower), projection

    def projector(self) -> Any:
        """transformers' class of it."""
        from transformers.models.aya_vision.modeling_aya_vision import AyaVisionMultiModalProjector

        return AyaVisionMultiModalProjector

    def rows(self, tower: Any) -> nn.Module:
        """The tower up to what the projector reads."""
        return Rows(tower, (self.depth,), 0)

    @property
    def eye(self) -> FrontEnd:
        """The front end with its limits of tiles."""
        assert isinstance(self.front, FrontEnd)
        return self.front

    def of_video(
        self, width: int, height: int, num_frames: int, fps: float
    ) -> tuple[tuple[Grid, ...], ...]:
        return Tower.of_video(self, width, height, num_frames, fps)

    def processor(self, frames: bool = False) -> Any:
        from transformers.models.got_ocr2 import image_processing_pil_got_ocr2 as module

        side = self.eye.image_size
        return module.GotOcr2ImageProcessorPil(
            size={"height": side, "width": side},
            crop_to_patches=True,
            min_patches=self.eye.min_tiles,
            max_patches=self.eye.max_tiles,
        )

    @property
    def aligned(self) -> int:
        """Width between the projector's two layers, of which one half gates the other."""
        return int(getattr(self.whole, "alignment_intermediate_size", self.hidden))

    def _first(self, grids: Sequence[Grid]) -> int:
        """Matmul FLOPs of the projector's first layer."""
        wide = self.config.hidden_size * self.patches_a_token
        return 2 * sum(map(self.tokens, grids)) * wide * self.aligned

    def adapter_flops(self, grids: tuple[Grid, ...]) -> int:
        second = 2 * sum(map(self.tokens, grids)) * (self.aligned // 2) * self.hidden
        return self._first(grids) + second


TOWERS.add("aya_vision", AyaVision)
