"""Shared by systems that keep the visual embeddings as they are (HiMix, SAISA).

Every layer makes keys and values of the same embeddings of the encoder's width; no visual row is a
query, passes an MLP or is updated.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

from workbench.lvlm.attention.costs import token_flops
from workbench.lvlm.attention.decomposed import Decomposed, DecomposedLayer
from workbench.lvlm.attention.row_inputs import RowInputs
from workbench.lvlm.parts.chunked import token_chunks
from workbench.lvlm.place import Place
from workbench.vocabulary.cell import Cell

if TYPE_CHECKING:
    from workbench.lvlm.parts import LayerParts

ENCODER_WIDTH = 1152
"""Of SigLIP so400m (config.json of google/siglip-so400m-patch14-384, hidden_size)."""


class KeptLayer(DecomposedLayer):
    """Text alone is updated; the visual state passes through unchanged."""

    def visual_stream(self, visual: Tensor, more: RowInputs) -> tuple[Tensor, ...]:
        taken = more.taken.get("visual")
        if taken is not None:
            return visual, taken[0], taken[1]
        if self.chunk is None or visual.shape[1] <= self.chunk:
            made = self.keys(visual)
        else:
            weights = [w for module in self.key_modules() for w in module.parameters()]
            made = token_chunks(self.keys, self.chunk, [visual], weights)
        key, value, *latents = (y.transpose(1, 2) for y in made)
        if not (self.rotate_visual and self.prefixes):
            more.give("visual", key, value)
        return visual, key, value, *latents

    def keys(self, visual: Tensor) -> tuple[Tensor, ...]:
        """Token-wise: embeddings [B, n, W] -> un-rotated key and value [B, n, G, K].

        Behind them, where a cache is kept that has others, its entries.
        """
        raise NotImplementedError

    def key_modules(self) -> Sequence[nn.Module]:
        """The modules that ``keys`` uses."""
        raise NotImplementedError


class Kept(Decomposed):
    """Costs of such a system; subclasses add those of an embedding's keys and values."""

    options = ("chunk",)
    adapter = False
    mixes = False
    modal = False
    norms_turned = False
    stacks = False
    shared_states = 1

    def visual_width(self, parts: "LayerParts") -> int:
        return ENCODER_WIDTH

    def key_flops(self, parts: "LayerParts") -> int:
        """Matmul FLOPs of ``keys``, of one embedding."""
        raise NotImplementedError

    def linear_flops(self, parts: "LayerParts", place: Place, cell: Cell) -> int:
        visual = place.layout.num_visual * self.key_flops(parts)
        return cell.batch * (visual + place.layout.num_text * token_flops(parts))
