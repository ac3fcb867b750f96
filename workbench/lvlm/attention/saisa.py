"""SAISA (arXiv 2502.02458): every layer reads the encoder's features through a projector.

The features E keep the encoder's width W and are never updated. Each layer projects them to the
decoder's width, X = W₂·gelu(W₁E + b₁) + b₂, and makes keys and values of X with the layer's own
norm, projections and RoPE; a text row takes one softmax over the visual tokens before it and the
text up to itself. X is not passed on.

O(|V|) in every layer, of which the projectors are most. It gives up V2V and every update of the
visual tokens, and needs training. A layer's text rows are those of S-Attn over [X; text].
"""

from typing import TYPE_CHECKING

from torch import Tensor, nn

from workbench.lvlm.attention import SYSTEMS, System
from workbench.lvlm.attention.costs import Pairs, token_flops
from workbench.lvlm.attention.kept import ENCODER_WIDTH, Kept, KeptLayer
from workbench.lvlm.attention.pairs import rotated_pairs
from workbench.lvlm.context import Context
from workbench.lvlm.parts.marks import region
from workbench.lvlm.place import Place
from workbench.lvlm.weights.random import randomise

if TYPE_CHECKING:
    from workbench.lvlm.parts import LayerParts


class SaisaLayer(KeptLayer):
    """Keys and values of the layer's own projections, from a projector's output."""

    rotate_visual = True

    def __init__(
        self, system: System, parts: "LayerParts", context: Context, place: Place
    ) -> None:
        super().__init__(system, parts, context, place)
        if parts.takes_keys:  # What the features are projected for.
            return
        width = parts.hidden_size
        self.projector = context.create(
            lambda: nn.Sequential(
                nn.Linear(ENCODER_WIDTH, width), nn.GELU(), nn.Linear(width, width)
            )
        )
        randomise(self.projector)

    def key_modules(self) -> tuple[nn.Module, ...]:
        return (self.projector, self.parts.input_norm, *self.parts.key_value_modules)

    def keys(self, visual: Tensor) -> tuple[Tensor, ...]:
        with region("projections"):
            projected = self.projector(visual)
        return self.keys_and_latents(self.parts.input_norm(projected))


class Saisa(Kept):
    name = "saisa"
    layer_class = SaisaLayer

    def pairs(self, place: Place, window: int | None) -> Pairs:
        return rotated_pairs(place.layout, window)

    def key_flops(self, parts: "LayerParts") -> int:
        if parts.takes_keys:
            return 0
        projector = 2 * parts.hidden_size * (ENCODER_WIDTH + parts.hidden_size)
        return projector + token_flops(parts, q=False, rest=False)

    def extra_parameters(self, parts: "LayerParts", place: Place) -> int:
        if parts.takes_keys:
            return 0
        return parts.hidden_size * (ENCODER_WIDTH + parts.hidden_size + 2)


SYSTEMS.add("saisa", Saisa())
