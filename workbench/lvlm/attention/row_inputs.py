"""What rows bring to a layer beside their hidden states (Gemma 4's E2B and E4B)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from workbench.lvlm.parts import LayerParts


@dataclass(frozen=True)
class RowInputs:
    """By stream (``visual``, ``text``, or ``sequence`` for both in one), for one forward."""

    own: Mapping[str, Tensor] = field(default_factory=dict)
    """Embeddings of the rows for this layer alone, [B, n, P]."""
    taken: Mapping[str, tuple[Tensor, ...]] = field(default_factory=dict)
    """Keys and values [B, G, n, K] of the earlier layer that this one takes them from."""
    given: dict[str, tuple[Tensor, ...]] | None = None
    """Where this layer's are put once they are made; None where no later one takes them."""

    def give(self, stream: str, *tensors: Tensor) -> None:
        """Let later layers have these keys and values of a stream."""
        if self.given is not None:
            self.given[stream] = tensors

    def keys_of(
        self, stream: str, parts: "LayerParts", entries: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        """Keys and values [B, G, n, K] that a stream meets: of what a cache holds of its rows,
        for later layers too; of another layer where there are no such ``entries``.
        """
        if entries is None:
            key, value = self.taken[stream]
            return key, value
        key, value = parts.expand(entries)
        self.give(stream, key, value)
        return key, value


NOTHING = RowInputs()
"""Of all families but those whose ids have an embedding for every layer."""


def run_real(layer: Any, sequence: Tensor, arguments: dict[str, Any], more: RowInputs) -> Tensor:
    """transformers' layer over rows [B, S, D], with what these bring and the layer takes or gives.

    ``arguments`` are its others.
    """
    attention = layer.self_attn
    taken = more.taken.get("sequence")
    shared = {} if taken is None else {attention.layer_type: taken}
    hidden: Tensor = layer(
        sequence,
        per_layer_input=more.own["sequence"],
        shared_kv_states=shared,
        **arguments,
    )
    if attention.store_full_length_kv:
        more.give("sequence", *shared[attention.layer_type])
    return hidden
