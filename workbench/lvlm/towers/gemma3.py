"""Gemma 3's own tower: SigLIP at 896 pixels without a head, pooled to 256 tokens an image.

The projector is transformers': the 64 × 64 patches are averaged to 16 × 16, normed and multiplied
into the decoder's width.
"""

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from workbench.lvlm.reduce import TokenGrid
from workbench.lvlm.towers import TOWERS, Grid, Serves
from workbench.lvlm.towers.siglip import SigLIP
from workbench.visual.gemma_3 import Gemma3 as PanAndScan
from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from workbench.lvlm.context import Context
    from workbench.lvlm.models import Resolved

TOKENS = 256
"""mm_tokens_per_image of Gemma3Config where a file leaves it out."""


class Pool(nn.Module):
    """The projector's pooling alone, for what keeps the tower's width."""

    def __init__(self, side: int, stride: int) -> None:
        super().__init__()
        self.side = side
        self.pool = nn.AvgPool2d(stride, stride)

    def forward(self, features: Tensor) -> Tensor:
        """[N, patches, W] -> [N, tokens, W]."""
        square = features.transpose(1, 2).unflatten(2, (self.side, self.side)).contiguous()
        return self.pool(square).flatten(2).transpose(1, 2)


class Gemma3(SigLIP):
    """A token is the mean of a square of patches."""

    serves: ClassVar[Serves] = {"gemma3": ("siglip_vision_model",)}
    front_end = "gemma-3"
    merges = True

    def __init__(self, model: "Resolved") -> None:
        super().__init__(model)
        self.family = model.family
        tokens = getattr(model.whole, "mm_tokens_per_image", None) or TOKENS
        self.num_tokens = tokens
        side, root = round(self.image.patches**0.5), round(tokens**0.5)
        if root**2 != tokens or side % root:
            raise RequestError(
                f"model {model.name!r}: mm_tokens_per_image {tokens}: a square whose side divides "
                f"the {side} patches of a side that vision_config.image_size and patch_size make"
            )
        self.patches_a_token = self.image.patches // tokens

    def token_grid(self, grid: Grid) -> TokenGrid:
        side = int(self.num_tokens**0.5)
        return TokenGrid.of(side, side)

    def build(
        self, context: "Context", grids: tuple[Grid, ...], adapter: bool
    ) -> tuple[nn.Module, nn.Module | None]:
        if adapter:
            return super().build(context, grids, adapter)
        return self.tower(context), self.pool

    @property
    def pool(self) -> Pool:
        """Of patches to tokens."""
        side = self.image.rows
        return Pool(side, side // int(self.num_tokens**0.5))

    def of_tokens(self, values: Tensor) -> Tensor:
        """The mean over a token's patches."""
        if values.ndim == 2:
            return self.pool(values[..., None])[..., 0]
        pooled: Tensor = self.pool(values)
        return pooled

    def of_image(self, width: int, height: int) -> tuple[Grid, ...]:
        return (self.image,) * (1 + self._crops.num_crops(width, height))

    @property
    def _crops(self) -> PanAndScan:
        assert isinstance(self.front, PanAndScan)
        return self.front

    def processor(self) -> Any:
        from transformers.models.gemma3 import image_processing_pil_gemma3 as module

        return module.Gemma3ImageProcessorPil(
            size=self._size,
            do_pan_and_scan=self._crops.pan_and_scan,
            pan_and_scan_min_crop_size=self._crops.min_crop,
            pan_and_scan_max_num_crops=self._crops.max_crops,
            pan_and_scan_min_ratio_to_activate=self._crops.min_ratio,
        )

    def adapter(self, context: "Context") -> nn.Module:
        """transformers' projector."""
        config = SimpleNamespace(
            vision_config=self.config,
            text_config=SimpleNamespace(hidden_size=self.hidden),
            mm_tokens_per_image=self.num_tokens,
        )
        projector = self.family.from_transformers("Gemma3MultiModalProjector")
        projection = context.create(lambda: projector(config))
        context.weigh_component("adapter", projection, "multi_modal_projector.", self.model_type)
        return projection

    def adapter_flops(self, grids: tuple[Grid, ...]) -> int:
        return 2 * sum(map(self.tokens, grids)) * self.hidden * self.config.hidden_size


TOWERS.add("gemma3", Gemma3)
