"""What a layer's rows and pairs cost, in the words of every system's closed form."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workbench.lvlm.parts import LayerParts


@dataclass(frozen=True)
class Pairs:
    """Query-key pairs of one layer and one sample: computed (dense) and allowed by the mask."""

    dense: int
    allowed: int


@dataclass(frozen=True)
class Cached:
    """Tokens in one layer's cache for the next token, by stream."""

    visual: int
    text: int


def token_flops(parts: "LayerParts", q: bool = True, kv: bool = True, rest: bool = True) -> int:
    """Matmul FLOPs of one token through q, k and v, and through its gate, W_o and the MLP."""
    own = parts.output_elements + parts.mlp_elements
    return 2 * (parts.query_elements * q + parts.key_value_elements * kv + own * rest)


def expansion_flops(parts: "LayerParts", cached: Cached) -> int:
    """Of making keys and values of one sample's cached tokens anew, where a cache has latents."""
    return 2 * parts.expansion_elements * (cached.visual + cached.text)
