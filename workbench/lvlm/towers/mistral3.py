"""Mistral Small 3's tower and adapter: Pixtral's tower, whose patches a learnt merger joins."""

from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn

from workbench.lvlm.towers import TOWERS, Grid, Serves
from workbench.lvlm.towers.pixtral import KIND, Pixtral
from workbench.lvlm.towers.squares import first

if TYPE_CHECKING:
    from workbench.lvlm.context import Context


class Merged(nn.Module):
    """transformers' norm, patch merger and projector, for images of known sizes."""

    def __init__(self, projector: nn.Module, sizes: list[tuple[int, int]]) -> None:
        super().__init__()
        self.projector, self.sizes = projector, sizes

    def forward(self, features: Tensor) -> Tensor:
        """[patches, width] -> [tokens, D]."""
        return self.projector(features, self.sizes)


class Mistral3(Pixtral):
    """A token is 2 × 2 patches."""

    serves: ClassVar[Serves] = {"mistral3": (KIND,)}
    merges = True

    def merged(self) -> int:
        return int(self.whole.spatial_merge_size)

    def adapter(self, context: "Context", grids: tuple[Grid, ...]) -> nn.Module:
        from transformers.models.mistral3.modeling_mistral3 import Mistral3MultiModalProjector

        projection = context.create(lambda: Mistral3MultiModalProjector(self.wanted()))
        context.weigh_component("adapter", projection, "multi_modal_projector.", KIND)
        return Merged(projection, self.sizes(grids))

    def sizes(self, grids: tuple[Grid, ...]) -> list[tuple[int, int]]:
        """Heights and widths of all images in pixels, as transformers' projectors take them."""
        patch = first(self.config.patch_size)
        return [(g.rows * patch, g.columns * patch) for g in grids for _ in range(g.steps)]

    def entry_flops(self, grids: tuple[Grid, ...]) -> int:
        return 0  # Its norm comes first.

    def adapter_flops(self, grids: tuple[Grid, ...]) -> int:
        tokens, width = sum(map(self.tokens, grids)), self.config.hidden_size
        merger = 2 * tokens * width * width * self.patches_a_token
        return merger + super().adapter_flops(grids)


TOWERS.add("mistral3", Mistral3)
