"""DeepSeek-VL 7B's two towers: SigLIP at 384 pixels, and SAM at 1,024 beside it.

SAM's features, of its last layer and of its first global one, become a map of SigLIP's size by two
convolutions; the aligner takes each tower's to half of the decoder's width and mixes them.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from workbench.lvlm.towers import TOWERS, Grid, Serves, finish, implementation
from workbench.lvlm.towers.built import tower_reason
from workbench.lvlm.towers.deepseek_vl import DeepseekVL
from workbench.lvlm.towers.glance import View
from workbench.lvlm.towers.sam import (
    BIASED,
    encoder_flops,
    model_attention,
    neck_flops,
    patch_flops,
    patches_a_side,
)
from workbench.lvlm.towers.siglip import Features
from workbench.visual.deepseek_vl_hybrid import DeepseekVLHybrid as FrontEnd
from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from PIL.Image import Image

    from workbench.lvlm.context import Context
    from workbench.lvlm.models import Resolved

SAM = "sam_vision_model"


class Alpha(nn.Module):
    """The weight of the global layer's features, under the name that checkpoints give it."""

    def __init__(self) -> None:
        super().__init__()
        self.high_res_vision_alpha = nn.Parameter(torch.empty(1))


class Both(nn.Module):
    """Features of both towers, from the two sizes of every image."""

    def __init__(
        self, low: Features, high: tuple[Any, Any, Any], alpha: Alpha, tower: "Hybrid"
    ) -> None:
        super().__init__()
        self.low, self.alpha = low, alpha
        self.encoder, self.neck, self.proj = high
        self.chosen = tower.chosen
        self.edges = tower.config.image_size, tower.high.image_size

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """[B, pixels of a sample's images, the small ones first] -> [N, patches, width] each."""
        small, large = (3 * edge**2 for edge in self.edges)
        images = pixels.shape[1] // (small + large)
        low, high = (
            part.reshape(-1, 3, edge, edge)
            for part, edge in zip(
                pixels.split([images * small, images * large], 1), self.edges, strict=True
            )
        )
        return self.low(low), self.detailed(high)

    def detailed(self, pixels: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, patches of the other tower, width]."""
        hidden: Tensor = self.encoder.patch_embed(pixels)
        if self.encoder.pos_embed is not None:
            hidden = hidden + self.encoder.pos_embed
        first = hidden
        for index, layer in enumerate(self.encoder.layers):
            hidden = layer(hidden)
            if index == self.chosen:
                first = hidden
        last = self.proj(self.encoder.neck(hidden))
        mixed: Tensor = last + self.proj(self.neck(first)) * self.alpha.high_res_vision_alpha
        return mixed.permute(0, 2, 3, 1).flatten(1, 2)


class Aligned(nn.Module):
    """transformers' aligner over the features of both."""

    def __init__(self, aligner: nn.Module) -> None:
        super().__init__()
        self.aligner = aligner

    def forward(self, features: tuple[Tensor, Tensor]) -> Tensor:
        """[N, patches, width] each -> [N, patches, D]."""
        rows: Tensor = self.aligner(*features)
        return rows


class Hybrid(DeepseekVL):
    """Squares of two sizes; every patch of the smaller one a token."""

    serves: ClassVar[Serves] = {"deepseek_vl_hybrid": ("siglip_vision_model",)}
    front_end = "deepseek-vl-hybrid"
    without_adapter = (
        "keeps the features of one tower, and {tower.front_end} has two, whose adapter mixes them"
    )
    merges = True  # Features of two towers, so that a reducer follows.
    widens = False

    def __init__(self, model: "Resolved") -> None:
        super().__init__(model)
        whole: Any = model.whole
        self.whole, high = whole, whole.high_res_vision_config
        self.high = high
        kind = getattr(high, "model_type", None)
        reason = f"model_type {kind!r:.60}: {SAM}" if kind != SAM else tower_reason(high)
        if reason is None:
            reason = self._faults(model)
        if reason is not None:
            raise RequestError(f"model {model.name!r}: high_res_vision_config: {reason}")
        self.chosen = high.global_attn_indexes[0]

    def _faults(self, model: "Resolved") -> str | None:
        """What of the second tower's sizes makes no sense."""
        high, section = self.high, model.stated.get("high_res_vision_config")
        stated = section.get("intermediate_size") if isinstance(section, dict) else None
        if stated not in (None, high.mlp_dim):
            return f"intermediate_size {stated!r:.60}: transformers' class builds {high.mlp_dim}"
        if high.hidden_size % high.num_attention_heads:
            return f"hidden_size {high.hidden_size}: no multiple of its heads"
        global_layers = [*high.global_attn_indexes]
        if not global_layers or not 0 <= global_layers[0] < high.num_hidden_layers:
            last = high.num_hidden_layers - 1
            return f"global_attn_indexes {global_layers!r:.60}: the first is a layer, 0 to {last}"
        if self.hidden % 2:
            return f"hidden_size {self.hidden} of the text model: each tower gets half of it"
        return None

    @property
    def flags(self) -> list[str]:
        return [BIASED]

    def build(
        self, context: "Context", grids: tuple[Grid, ...], adapter: bool
    ) -> tuple[nn.Module, nn.Module | None]:
        from transformers.models.deepseek_vl_hybrid import modeling_deepseek_vl_hybrid as module
        from transformers.models.sam.modeling_sam import SamVisionModel

        self.high._attn_implementation = implementation(context)
        makers = {
            "model": lambda: SamVisionModel(self.high),
            "neck": lambda: module.DeepseekVLSamVisionNeck(self.high),
            "proj": lambda: module.DeepseekVLSamVisionProj(self.high, self.image.rows),
        }
        modules: dict[str, Any] = {}
        for name, make in makers.items():
            modules[name] = context.create(make)
            context.weigh_component(
                "tower", modules[name], f"high_res_vision_{name}.", self.model_type
            )
        alpha = context.create(Alpha)
        context.weigh_component("tower", alpha, "", self.model_type)
        finish(modules["model"], context)
        encoder = modules["model"].vision_encoder
        model_attention(encoder, context)
        high = encoder, modules["neck"], modules["proj"]
        return Both(self.tower(context), high, alpha, self), self.adapter(context)

    def adapter(self, context: "Context") -> nn.Module:
        from transformers.models.deepseek_vl_hybrid import modeling_deepseek_vl_hybrid as module

        aligner = context.create(lambda: module.DeepseekVLHybridAligner(self.whole))
        context.weigh_component("adapter", aligner, "aligner.", self.model_type)
        return Aligned(aligner)

    def view(self, module: nn.Module) -> View:
        low: Any = module.low
        return super().view(low)

    def preprocess(self, images: "Iterable[Image]", num_frames: int) -> Tensor:
        """The small squares of all images, then the large ones, [1, pixels]."""
        from transformers.models.deepseek_vl_hybrid import (
            image_processing_pil_deepseek_vl_hybrid as module,
        )

        assert isinstance(self.front, FrontEnd)
        low, high = ({"height": edge, "width": edge} for edge in self._edges)
        processor = module.DeepseekVLHybridImageProcessorPil(size=low, high_res_size=high)
        batches = [processor(image, return_tensors="pt") for image in images]
        names = "pixel_values", "high_res_pixel_values"
        return torch.cat([one[name].flatten() for name in names for one in batches])[None]

    @property
    def _edges(self) -> tuple[int, int]:
        """Pixels a side of the small square and of the large one."""
        return self.config.image_size, self.high.image_size

    def pixels(self, batch: int, grids: tuple[Grid, ...]) -> tuple[int, ...]:
        images = sum(grid.steps for grid in grids)
        return batch, images * sum(3 * edge**2 for edge in self._edges)

    def patch_flops(self, grids: tuple[Grid, ...]) -> int:
        images = sum(grid.steps for grid in grids)
        return super().patch_flops(grids) + images * patch_flops(self.high)

    def tower_flops(self, grids: tuple[Grid, ...]) -> int:
        images, out = sum(grid.steps for grid in grids), self.high.output_channels
        side, tokens = patches_a_side(self.high), self.image.patches
        # Two convolutions of 3 × 3 with strides of 2, over the features of either layer.
        shrunk = 2 * 9 * (4 * tokens * out * 2 * out + tokens * 2 * out * 4 * out)
        detailed = encoder_flops(self.high) + neck_flops(self.high, side) + 2 * shrunk
        # The patch embedding of SAM is in its encoder's.
        return super().tower_flops(grids) + images * (detailed - patch_flops(self.high))

    def entry_flops(self, grids: tuple[Grid, ...]) -> int:
        wide = self.config.hidden_size + 4 * self.high.output_channels
        return sum(map(self.tokens, grids)) * wide * self.hidden

    def adapter_flops(self, grids: tuple[Grid, ...]) -> int:
        return self.entry_flops(grids) + 2 * sum(map(self.tokens, grids)) * self.hidden**2


TOWERS.add("deepseek_vl_hybrid", Hybrid)
