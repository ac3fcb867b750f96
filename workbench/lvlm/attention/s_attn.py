"""S-Attn, the baseline: the layer as transformers ships it, one causal sequence of all tokens.

Visual and text tokens are rows of one sequence with RoPE at their indices; every row attends to
itself and to all rows before it, visual or text, in one softmax, and passes the layer's MLP. O(V²)
pairs a layer, half of them hidden by causality, and O(V) for everything else: of a long video the
pairs are most. It gives up nothing; all other systems are measured against it. Several GPUs can
share its sequence by heads (``--ulysses``), by rows (``--ring``), or both.
"""

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from workbench.lvlm.attention import SYSTEMS, System
from workbench.lvlm.attention.costs import Pairs, token_flops
from workbench.lvlm.caches.narrow import Narrow
from workbench.lvlm.context import TILE, Context
from workbench.lvlm.layout import Layout
from workbench.lvlm.place import Place
from workbench.vocabulary.cell import Cell

if TYPE_CHECKING:
    from workbench.lvlm.attention import Visual
    from workbench.lvlm.models import Resolved
    from workbench.lvlm.parts import LayerParts


class SAttnLayer(nn.Module):
    """The untouched layer; ``tiled`` wraps its MLP."""

    def __init__(self, parts: "LayerParts", context: Context, place: Place) -> None:
        super().__init__()
        self.layer: Any = parts.layer
        self.tables = context.positions_given(place.index, "sequence")
        self.mask = context.mask(place.layout.length, parts.window)
        self.places = context.query_places("sequence")
        self.cache_window, self.kept = parts.window, context.kept_cache()
        cached = SYSTEMS["s_attn"].cached(place, parts.window)
        self.cache_dtype, self.cached = context.cell.cache_dtype, cached.visual + cached.text
        if context.cell.sharing > 1:
            self.places = context.keep(context.layout.sequence.to(context.device)[None])
        if context.cell.tiled:
            parts.tile(TILE)

    def forward(self, sequence: Tensor) -> tuple[Tensor, ...]:
        """[B, S, D] -> [B, S, D]."""
        return (self.layer(sequence, **self.arguments()),)

    def arguments(self) -> dict[str, Any]:
        """What the layer, or its attention alone, is given beside hidden states."""
        return {
            "attention_mask": self.mask,
            "position_embeddings": self.tables,
            "position_ids": self.places,
            **self.cache(),
        }

    def cache(self) -> dict[str, Any]:
        """transformers' argument for a cache that keeps; empty where none is kept."""
        if self.kept is None:
            return {}
        from workbench.lvlm.caches.held import KeptCache

        cache = KeptCache(self.cache_window, self.kept, self.cache_dtype, self.cached)
        return {"past_key_values": cache}


class SAttnDecode(nn.Module):
    """The untouched layer over one token and transformers' own cache of rotated keys."""

    keys: Tensor
    values: Tensor
    keys_scales: Tensor
    values_scales: Tensor

    def __init__(self, parts: "LayerParts", context: Context, place: Place) -> None:
        super().__init__()
        self.layer: Any = parts.layer
        self.tables = context.positions_given(place.index, "next")
        self.places = context.query_places("next")
        cached = SYSTEMS["s_attn"].cached(place, parts.window)
        hidden = SYSTEMS["s_attn"].hidden(place, parts.window)
        self.hidden, self.tokens = hidden.visual + hidden.text, context.layout.length
        self.scheme = context.cell.cache_dtype
        for name in ("keys", "values"):
            cache = context.cache(parts, cached.visual + cached.text, name)
            if self.scheme is not None:
                cache, scales = Narrow.of(cache, self.scheme)
                self.register_buffer(f"{name}_scales", scales, persistent=False)
            self.register_buffer(name, cache, persistent=False)

    def forward(self, token: Tensor) -> tuple[Tensor, ...]:
        """[B, 1, D] -> [B, 1, D]."""
        return (self.layer(token, **self.arguments()),)

    def arguments(self) -> dict[str, Any]:
        """What the layer, or its attention alone, is given beside hidden states."""
        from workbench.lvlm.caches.held import HeldCache

        keys: Tensor | Narrow = self.keys
        values: Tensor | Narrow = self.values
        if self.scheme is not None:
            keys, values = (
                Narrow(self.keys, self.keys_scales),
                Narrow(self.values, self.values_scales),
            )
        return {
            "attention_mask": None,
            "position_embeddings": self.tables,
            "position_ids": self.places,
            "past_key_values": HeldCache(keys, values, self.hidden, self.tokens),
            "use_cache": True,
        }


class SAttn(System):
    name = "s_attn"
    decomposed = False
    options = ("tiled",)
    keeps_cache = True

    def layer(self, parts: "LayerParts", context: Context, place: Place) -> nn.Module:
        if context.cell.pass_ == "decode":
            return SAttnDecode(parts, context, place)
        return SAttnLayer(parts, context, place)

    def state(self, visual: "Visual", text: Tensor, layout: Layout) -> tuple[Tensor, ...]:
        assert not isinstance(visual, tuple), "only a system with a pooling has two streams"
        return (layout.join(visual, text),)

    def pairs(self, place: Place, window: int | None) -> Pairs:
        return Pairs(*place.layout.attended(window))

    def linear_flops(self, parts: "LayerParts", place: Place, cell: Cell) -> int:
        return cell.batch * place.layout.length * token_flops(parts)


class Baseline(SAttn):
    """S-Attn itself. Several ranks can share its sequence, not that of what builds on it."""

    ring = "rows"
    mixes = True
    norms_turned = True

    def on(self, model: "Resolved") -> System:
        """The released model as it is, also where that reads its images by layers of its own."""
        from workbench.lvlm.attention.altup import AltUpLayers
        from workbench.lvlm.attention.modal import ModalLayers
        from workbench.lvlm.attention.own_cross import OwnCrossLayers
        from workbench.lvlm.attention.per_layer import PerLayer

        if model.family.per_layer(model.config):
            return AltUpLayers() if model.family.altup else PerLayer()
        if model.family.modal:
            return ModalLayers()
        crossing = model.family.cross_layers(model.config)
        return OwnCrossLayers(crossing) if crossing else self

    def per_pair(self, parts: "LayerParts", place: Place) -> int:
        return super().per_pair(parts, place) // place.layout.shared_heads


SYSTEMS.add("s_attn", Baseline())
