"""S-Attn of a family whose tokens have several hidden states between layers (Gemma 3n).

The hidden states of a layer's state are streams [A, B, S, D].

The batched matmul of AltUp multiplies each token's streams with coefficients of its own: it is no
query-key pairs, and FLOPs of pairs leave it out.
"""

from typing import TYPE_CHECKING, Any

from workbench.lvlm.attention.per_layer import PerLayer
from workbench.lvlm.place import Place
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from workbench.lvlm.parts import LayerParts


class AltUpLayers(PerLayer):
    """Costs of S-Attn on such a family: of AltUp, LAuReL and the embeddings for each layer too."""

    def check(self, cell: Cell) -> None:
        super().check(cell)
        if cell.weights_dtype is not None and cell.pass_ == "train":
            raise RequestError(
                f"weights_dtype {cell.weights_dtype}: while {cell.model} trains, AltUp clips its "
                "matrices of coefficients where they lie, which codes do not let it; leave it out"
            )

    def hidden_shape(self, parts: "LayerParts", batch: int, tokens: int) -> tuple[int, ...]:
        return parts.attention.config.altup_num_inputs, batch, tokens, parts.hidden_size

    def more_flops(self, parts: "LayerParts") -> int:
        config: Any = parts.attention.config
        d, streams = parts.hidden_size, config.altup_num_inputs
        routers = 2 * d * streams  # Before the layer, and after it.
        coefficients = streams**3 + streams**2
        beside = 2 * d * config.laurel_rank
        own = 2 * (routers + coefficients + beside)
        return super().more_flops(parts) + own + mixing_flops(parts)

    def weightless_flops(self, parts: "LayerParts", place: Place, cell: Cell) -> tuple[int, int]:
        mixing = cell.batch * place.layout.length * mixing_flops(parts)
        return mixing, 2 * mixing


def mixing_flops(parts: "LayerParts") -> int:
    """Matmul FLOPs of a token's streams with its coefficients."""
    streams = parts.attention.config.altup_num_inputs
    return int(2 * parts.hidden_size * streams**2)
