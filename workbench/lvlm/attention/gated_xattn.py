"""Gated cross-attention (Flamingo, arXiv 2204.14198; Llama 3.2 Vision, arXiv 2407.21783).

Only text is in the sequence. Before layer i, for i ≥ ``first`` and (i − first) mod ``every`` = 0,
stands an inserted layer of the family's own classes and sizes, in which text reads the adapter's
visual embeddings O: un-normed, never updated, without RoPE, not causal.

    x += tanh(γ₁)·W_o·XA(qn(W_q norm(x)); kn(W_k O), W_v O)      x += tanh(γ₂)·MLP(mlp_norm(x))

qn and kn are norms over a head; a family with a QK-norm keeps its own. γ is 0 at the start. A row
before the first image stays as it is. O(|V|), in the inserted layers alone. It gives up V2V and
every update of the visual tokens, adds layers, and needs training.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from workbench.lvlm.attention import SYSTEMS
from workbench.lvlm.attention.costs import Cached, Pairs, expansion_flops, token_flops
from workbench.lvlm.attention.decomposed import prefix_rows
from workbench.lvlm.attention.pairs import cross_pairs, text_prefixes
from workbench.lvlm.attention.reading import TextCosts, TextLayer
from workbench.lvlm.context import Context
from workbench.lvlm.kernels import Branch, Prefix, Scores
from workbench.lvlm.layout import Layout
from workbench.lvlm.parts.marks import region
from workbench.lvlm.place import Place
from workbench.lvlm.weights.random import randomise
from workbench.vocabulary.cell import Cell

if TYPE_CHECKING:
    from workbench.lvlm.models import Resolved
    from workbench.lvlm.parts import LayerParts

CROSS = "cross"
"""The role of an inserted layer."""


class CrossLayer(nn.Module):
    """An inserted layer: text attends to the visual embeddings, then its MLP, both gated."""

    visual_keys: Tensor
    visual_values: Tensor

    def __init__(self, parts: "LayerParts", context: Context, place: Place) -> None:
        super().__init__()
        self.layer, self.parts, self.kernel = parts.layer, parts, context.kernel
        eps = context.model.config.rms_norm_eps
        self.norms = nn.ModuleDict()
        for name, own in (("query", parts.q_norm), ("key", parts.k_norm)):
            if own is None:
                norm = context.create(lambda: nn.RMSNorm(parts.head_dim, eps=eps))
                randomise(norm)
                self.norms[name] = norm
        zero = torch.zeros(1, dtype=context.dtype, device=context.device)
        self.attention_gate, self.mlp_gate = nn.Parameter(zero), nn.Parameter(zero.clone())
        self.scores = Scores(parts.scale, parts.softcap, causal=False)
        self.decode = context.cell.pass_ == "decode"
        self.sees: Tensor | None = None
        layout = place.layout
        self.num_visual = layout.num_visual
        if self.decode:
            self.prefixes: tuple[Prefix, ...] = (Prefix(0, 1, self.num_visual),)
            for name in ("keys", "values"):
                cache = context.cache(parts, self.num_visual, name)
                self.register_buffer(f"visual_{name}", cache, persistent=False)
            return
        self.prefixes = text_prefixes(layout)
        self.sees = prefix_rows(self.prefixes, layout.num_text, context)

    def forward(self, *state: Tensor) -> tuple[Tensor, ...]:
        """[B, V, D], [B, T, D] -> the same shapes; the text alone [B, 1, D] in a decode step."""
        *streams, text = state
        if not self.num_visual:
            return state
        key, value = self._cached() if self.decode else self._keys(streams[0])
        return (*streams, self._rows(text, key, value) if text.shape[1] else text)

    def _keys(self, visual: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [B, G, V, K] of the embeddings as they are."""
        key, value = self.parts.key_value(visual)
        return self._normed("key", key), value

    def _cached(self) -> tuple[Tensor, Tensor]:
        """The same of a cache: normed before they were kept, unless that has latents."""
        key, value = self.parts.expand((self.visual_keys, self.visual_values))
        return key if key is self.visual_keys else self._normed("key", key), value

    def _normed(self, name: str, x_bhsk: Tensor) -> Tensor:
        if name not in self.norms:
            return x_bhsk
        with region("norms"):
            return self.norms[name](x_bhsk)

    def _rows(self, text: Tensor, key: Tensor, value: Tensor) -> Tensor:
        parts = self.parts
        q = self._normed("query", parts.query(parts.input_norm(text)))
        branch = Branch(q, key, value, "T2V")
        with region(branch.region):
            partial = self.kernel.cross(branch, self.prefixes, self.scores)
        out = parts.output(partial)
        if parts.post_attention_norm is not None:
            out = parts.post_attention_norm(out)
        text = self._join(text, out, self.attention_gate)
        return self._join(text, parts.feed(parts.mlp, text), self.mlp_gate)

    def _join(self, text: Tensor, out: Tensor, gate: Tensor) -> Tensor:
        """The gated residual, of rows that see an image."""
        with region("merge"):
            weight = torch.tanh(gate)
            return text + (weight if self.sees is None else weight * self.sees) * out


class GatedXAttn(TextCosts):
    name = "gated_xattn"
    lacks = "the layers that it inserts have no such embedding, nor a place among those that share"
    between = True
    instead = "which are what this system would insert: they are already there"

    def places(self, model: "Resolved", cell: Cell, layout: Layout) -> tuple[Place, ...]:
        """Inserted layers stand before the layer whose kind they copy."""
        own, cross_layers = super().places(model, cell, layout), self.chosen(model, cell)
        places: list[Place] = []
        for place in own:
            if place.index in cross_layers:
                places.append(Place(place.index, layout, CROSS, inserted=True))
            places.append(place)
        return tuple(places)

    def reads_visual(self, place: Place) -> bool:
        return place.inserted

    def layer(self, parts: "LayerParts", context: Context, place: Place) -> nn.Module:
        if place.inserted:
            return CrossLayer(parts, context, place)
        return TextLayer(self, parts, context, place)

    def pairs(self, place: Place, window: int | None) -> Pairs:
        if not place.inserted:
            return super().pairs(place, window)
        cross = cross_pairs(place.layout)
        return Pairs(cross, cross)

    def linear_flops(self, parts: "LayerParts", place: Place, cell: Cell) -> int:
        visual, text = place.layout.num_visual, place.layout.num_text
        if not place.inserted:
            return super().linear_flops(parts, place, cell)
        if not visual:
            return 0
        keys = visual * token_flops(parts, q=False, rest=False)
        return cell.batch * (keys + text * token_flops(parts, kv=False))

    def extra_parameters(self, parts: "LayerParts", place: Place) -> int:
        """Beside the inserted layer's own, which are the family's: its head norms and gates."""
        if not place.inserted:
            return 0
        norms = sum(norm is None for norm in (parts.q_norm, parts.k_norm))
        return norms * parts.head_dim + 2

    def cached(self, place: Place, window: int | None) -> Cached:
        if place.inserted:
            return Cached(place.layout.num_visual, 0)
        return super().cached(place, window)

    def hidden(self, place: Place, window: int | None) -> Cached:
        return Cached(0, 0) if place.inserted else super().hidden(place, window)

    def token_flops(self, parts: "LayerParts", place: Place, cached: Cached) -> int:
        if not place.inserted:
            return super().token_flops(parts, place, cached)
        if not cached.visual:
            return 0
        return token_flops(parts, kv=False) + expansion_flops(parts, cached)

    def decode_pairs(self, place: Place, cached: Cached) -> int:
        return cached.visual if place.inserted else cached.text + 1


SYSTEMS.add("gated_xattn", GatedXAttn())
