"""LLaVA 1.5's tower and projector: CLIP or SigLIP, the hidden states of one of its layers.

Layers beyond ``vision_feature_layer`` (LLaVA takes the last but one), the tower's last norm and
its pooling head feed no token: they are held, but neither run nor trained. transformers runs them.
"""

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from workbench.errors import RequestError, Unsupported
from workbench.lvlm.reduce import TokenGrid
from workbench.lvlm.towers import TOWERS, Grid, Serves, Tower, finish, implementation
from workbench.vision.llava import Llava as FrontEnd

if TYPE_CHECKING:
    from collections.abc import Iterable

    from PIL.Image import Image

    from workbench.lvlm.context import Context
    from workbench.lvlm.models import Resolved


class Rows(nn.Module):
    """The hidden states of one layer, without the rows that the strategy drops."""

    def __init__(self, tower: Any, depth: int, dropped: int) -> None:
        super().__init__()
        self.tower, self.dropped = tower, dropped
        layers = [*tower.encoder.layers]
        self.run = nn.ModuleList(layers[:depth])
        tower.requires_grad_(False)  # What is left of it but its embeddings feeds no token.
        for module in (self.run, tower.embeddings, getattr(tower, "pre_layrnorm", None)):
            if module is not None:
                module.requires_grad_(True)

    def forward(self, pixels: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, rows, width]."""
        hidden = self.tower.embeddings(pixels)
        norm = getattr(self.tower, "pre_layrnorm", None)
        hidden = hidden if norm is None else norm(hidden)
        for layer in self.run:
            hidden = layer(hidden, attention_mask=None)
        return hidden[:, self.dropped :]


class Llava(Tower):
    """Squares of one size; every patch, and a class token that stays, is a token."""

    serves: ClassVar[Serves] = {"llava": ("clip_vision_model", "siglip_vision_model")}
    front_end = "llava"

    def __init__(self, model: "Resolved") -> None:
        super().__init__(model)
        whole: Any = model.whole
        assert whole is not None, "chosen by its config"
        self.name, self.whole, self.config = model.name, whole, whole.vision_config
        self.hidden = model.config.hidden_size
        self.side = self.config.image_size // self.config.patch_size
        self.class_token = int(self.config.model_type == "clip_vision_model")
        self.dropped = int(whole.vision_feature_select_strategy == "default")
        chosen, layers = whole.vision_feature_layer, self.config.num_hidden_layers
        self.depth = 0
        if isinstance(chosen, int):
            self.depth = chosen if chosen >= 0 else layers + 1 + chosen
        if not 1 <= self.depth <= layers:
            raise RequestError(
                f"model {self.name!r}: vision_feature_layer {chosen!r:.60}: the tower of llava "
                f"takes one of its {layers} layers"
            )
        rows = self.side**2 + self.class_token - self.dropped
        self.image = Grid(1, 1, rows)

    def token_grid(self, grid: Grid) -> TokenGrid:
        # With its class token an image has no rows.
        square = grid.columns == self.side**2
        return TokenGrid.of(self.side, self.side) if square else TokenGrid(grid.columns)

    def build(
        self, context: "Context", grids: tuple[Grid, ...], adapter: bool
    ) -> tuple[nn.Module, nn.Module | None]:
        from transformers import CLIPVisionModel, SiglipVisionModel

        if not adapter:
            raise Unsupported(
                f"{context.cell.attention} is built on SigLIP's features, and the tower of llava "
                "takes another layer's; --tower siglip"
            )
        self.config._attn_implementation = implementation(context)
        kind: Any = CLIPVisionModel if self.class_token else SiglipVisionModel
        tower = context.create(lambda: kind(self.config))
        count = self.side**2 + self.class_token
        # The one buffer of the tower: not a parameter, so ``create`` left it without values.
        tower.embeddings.position_ids = torch.arange(count, device=context.device)[None]
        context.weigh_part("tower", tower, "vision_tower.", self.config.model_type)
        finish(tower, context)
        return Rows(tower, self.depth, self.dropped), self.adapter(context)

    @property
    def flags(self) -> list[str]:
        layers = self.config.num_hidden_layers
        if self.depth == layers:
            return []
        return [
            f"tower: the last {layers - self.depth} of its {layers} layers feed no token and are "
            "held, not run; transformers runs them"
        ]

    def adapter(self, context: "Context") -> nn.Module:
        """transformers' projector."""
        from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

        wanted: Any = SimpleNamespace(
            vision_config=self.config,
            text_config=SimpleNamespace(hidden_size=self.hidden),
            vision_feature_layer=-1,
            projector_hidden_act=self.whole.projector_hidden_act,
            multimodal_projector_bias=self.whole.multimodal_projector_bias,
        )
        made = context.create(lambda: LlavaMultiModalProjector(wanted))
        context.weigh_part("adapter", made, "multi_modal_projector.", self.config.model_type)
        return made

    @property
    def _eye(self) -> FrontEnd:
        assert isinstance(self.front, FrontEnd)
        return self.front

    def of_image(self, width: int, height: int) -> tuple[Grid, ...]:
        return (self.image,)

    def preprocess(self, images: "Iterable[Image]", num_frames: int) -> Tensor:
        processor = self.processor()
        return torch.cat([processor(i, return_tensors="pt")["pixel_values"] for i in images])

    def processor(self) -> Any:
        """transformers' image processor at the size of the tower."""
        from transformers.models.clip import image_processing_pil_clip as clip
        from transformers.models.siglip import image_processing_pil_siglip as siglip

        side = self._eye.image_size
        square = {"height": side, "width": side}
        if self.class_token:
            return clip.CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size=square)
        return siglip.SiglipImageProcessorPil(size=square)

    def pixels(self, batch: int, grids: tuple[Grid, ...]) -> tuple[int, ...]:
        side = self.config.image_size
        return batch * len(grids), self.config.num_channels, side, side

    def patch_flops(self, grids: tuple[Grid, ...]) -> int:
        pixels = self.config.num_channels * self.config.patch_size**2
        return 2 * len(grids) * self.side**2 * self.config.hidden_size * pixels

    def tower_flops(self, grids: tuple[Grid, ...]) -> int:
        width, mlp = self.config.hidden_size, self.config.intermediate_size
        rows = self.side**2 + self.class_token
        row = 2 * (4 * width**2 + 2 * width * mlp) + 4 * rows * width
        return self.patch_flops(grids) + self.depth * len(grids) * rows * row

    def entry_flops(self, grids: tuple[Grid, ...]) -> int:
        return 2 * sum(map(self.tokens, grids)) * self.hidden * self.config.hidden_size

    def adapter_flops(self, grids: tuple[Grid, ...]) -> int:
        tokens = sum(map(self.tokens, grids))
        return 2 * tokens * self.hidden * (self.config.hidden_size + self.hidden)


TOWERS.add("llava", Llava)
