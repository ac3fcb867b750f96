"""LLaVA 1.5's tower and projector: CLIP or SigLIP, the hidden states of one of its layers.

Layers beyond ``vision_feature_layer`` (LLaVA takes the last but one), the tower's last norm and
its pooling head feed no token: they are held, but neither run nor trained. transformers runs them.
"""

from collections.abc import Sequence
from functools import cached_property
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from workbench.lvlm.reduce import TokenGrid
from workbench.lvlm.towers import TOWERS, Grid, Serves, finish, implementation
from workbench.lvlm.towers.glance import View, glance_flops, last_but_one
from workbench.lvlm.towers.squares import Rows, Squares, check_projector, depth_of, idle_layers
from workbench.visual.llava import Llava as FrontEnd

if TYPE_CHECKING:
    from workbench.lvlm.context import Context
    from workbench.lvlm.models import Resolved


class Llava(Squares):
    """Squares of one size; every patch, and a class token that stays, is a token."""

    serves: ClassVar[Serves] = {"llava": ("clip_vision_model", "siglip_vision_model")}
    front_end = "llava"
    without_adapter = (
        "is built on SigLIP's features, and the tower of {tower.front_end} takes another "
        "layer's; "
        "--tower siglip"
    )
    widens = True
    rows_class: type[Rows] = Rows
    several = False
    """Whether features of several layers may lie side by side."""

    def __init__(self, model: "Resolved") -> None:
        super().__init__(model)
        self.read_config()
        self.name = model.name
        self.check()
        self.class_token = int(self.config.model_type == "clip_vision_model")
        # ViP-LLaVA has no strategy: it drops the first row.
        strategy = getattr(self.whole, "vision_feature_select_strategy", "default")
        self.dropped = int(strategy == "default")
        layers = self.config.num_hidden_layers
        self.depths = tuple(
            depth_of(self.name, self.front_end, each, layers) for each in self.feature_layers()
        )
        self.depth = max(self.depths)

    def check(self) -> None:
        """Raise RequestError for a projector that cannot be."""
        check_projector(self.name, self.whole)

    def feature_layers(self) -> "Sequence[Any]":
        """The layers whose hidden states are taken, as the config says."""
        layer = self.whole.vision_feature_layer
        several = self.several and isinstance(layer, (list, tuple)) and len(layer) > 0
        return layer if several else [layer]

    @property
    def feature_width(self) -> int:
        return int(self.config.hidden_size) * len(self.depths)

    @cached_property
    def image(self) -> Grid:  # type: ignore[override]
        return Grid(1, 1, self.side**2 + self.class_token - self.dropped)

    def token_grid(self, grid: Grid) -> TokenGrid:
        # With its class token an image has no rows.
        square = grid.columns == self.side**2
        return TokenGrid.of(self.side, self.side) if square else TokenGrid(grid.columns)

    def build(
        self, context: "Context", grids: tuple[Grid, ...], adapter: bool
    ) -> tuple[nn.Module, nn.Module | None]:
        from transformers import CLIPVisionModel, SiglipVisionModel

        self.config._attn_implementation = implementation(context)
        kind: Any = CLIPVisionModel if self.class_token else SiglipVisionModel
        tower = context.create(lambda: kind(self.config))
        count = self.side**2 + self.class_token
        # The one buffer of the tower: not a parameter, so ``create`` left it without values.
        tower.embeddings.position_ids = torch.arange(count, device=context.device)[None]
        context.weigh_component("tower", tower, "vision_tower.", self.config.model_type)
        finish(tower, context)
        return self.rows_class(tower, self.depths, self.dropped), self.adapter(context)

    def view(self, module: nn.Module) -> View | None:
        if self.merges:
            return None
        rows: Any = module
        layer = last_but_one(rows.tower.encoder.layers, self.depth)
        return View(layer.self_attn, self.class_token, rows.dropped)

    def glance_flops(self, grids: tuple[Grid, ...], needs: Sequence[str]) -> int:
        rows, width = self.side**2 + self.class_token, self.config.hidden_size
        return glance_flops(needs, self._squares(grids), rows, width, bool(self.class_token))

    @property
    def flags(self) -> list[str]:
        return idle_layers(self.depth, self.config.num_hidden_layers)

    def adapter(self, context: "Context") -> nn.Module:
        """transformers' projector."""
        from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

        config: Any = SimpleNamespace(
            vision_config=SimpleNamespace(hidden_size=self.entry_width),
            text_config=SimpleNamespace(hidden_size=self.hidden),
            vision_feature_layer=-1,
            projector_hidden_act=self.whole.projector_hidden_act,
            multimodal_projector_bias=self.whole.multimodal_projector_bias,
        )
        projection = context.create(lambda: LlavaMultiModalProjector(config))
        self.weigh_adapter(context, projection, "multi_modal_projector.", self.config.model_type)
        return projection

    @property
    def _eye(self) -> FrontEnd:
        assert isinstance(self.front, FrontEnd)
        return self.front

    def processor(self, frames: bool = False) -> Any:
        """transformers' image processor at the size of the tower."""
        from transformers.models.clip import image_processing_pil_clip as clip
        from transformers.models.siglip import image_processing_pil_siglip as siglip

        side = self._eye.image_size
        square = {"height": side, "width": side}
        if self.class_token:
            return clip.CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size=square)
        return siglip.SiglipImageProcessorPil(size=square)

    def entry_flops(self, grids: tuple[Grid, ...]) -> int:
        return 2 * sum(map(self.tokens, grids)) * self.hidden * self.entry_width

    def adapter_flops(self, grids: tuple[Grid, ...]) -> int:
        tokens = sum(map(self.tokens, grids))
        return 2 * tokens * self.hidden * (self.entry_width + self.hidden)


TOWERS.add("llava", Llava)
