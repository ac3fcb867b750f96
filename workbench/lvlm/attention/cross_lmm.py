"""CrossLMM (arXiv 2505.17020): pooled visual tokens in the sequence, the originals beside it.

The sequence is that of S-Attn over [P; T], P of windows of ``pool`` × ``pool`` tokens of an image,
pooled before the adapter; without images (scopes layer and decoder) runs of ``pool²`` tokens
inside each visual segment. The originals O are the adapter's output and never updated. In layers
(i + 1) mod ``every`` = 0, before the MLP, with y = mlp_norm(h) and two modules of q, k and v:

    h_P += tanh(γ₁)·XA(y_P W_q¹; O W_k¹, O W_v¹)      h_T += tanh(γ₂)·XA(y_T W_q²; O W_k², O W_v²)

Pooled rows see the originals up to their segment's end, text rows those before them; heads are
concatenated, without W_o and RoPE. γ is 0 at the start. P grows with |V|, so the order is
|V|²/``pool``² in a quarter of the layers, and O(|V|) keys there. It gives up detail in most
layers, and needs training. The paper writes self-attention's residual as post-norm; here it is the
family's.
"""

from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from workbench.lvlm.attention import SYSTEMS
from workbench.lvlm.attention.costs import Cached, Pairs, token_flops
from workbench.lvlm.attention.pairs import text_prefixes
from workbench.lvlm.attention.s_attn import SAttn, SAttnDecode, SAttnLayer
from workbench.lvlm.context import Context
from workbench.lvlm.kernels import Branch, Prefix, Scores
from workbench.lvlm.layout import Layout
from workbench.lvlm.parts import OwnTiles
from workbench.lvlm.parts.marks import region
from workbench.lvlm.place import Place
from workbench.lvlm.reduce import REDUCERS, Reducer, entering_layout
from workbench.lvlm.weights.random import randomise
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.errors import Faults, RequestError, Unsupported

if TYPE_CHECKING:
    from workbench.lvlm.attention import Visual
    from workbench.lvlm.models import Resolved
    from workbench.lvlm.parts import LayerParts

CROSS = "cross"
"""The role of a layer that reads the originals."""


class CrossAttention(nn.Module):
    """Queries of one stream, keys and values of the originals: heads as wide as the layer's."""

    def __init__(self, parts: "LayerParts") -> None:
        super().__init__()
        wide, narrow = (n * parts.head_dim for n in (parts.num_heads, parts.num_kv_heads))
        self.q_proj = nn.Linear(parts.hidden_size, wide, bias=False)
        self.k_proj = nn.Linear(parts.hidden_size, narrow, bias=False)
        self.v_proj = nn.Linear(parts.hidden_size, narrow, bias=False)


class PlainLayer(nn.Module):
    """A layer of S-Attn over the sequence; the originals pass by."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *state: Tensor) -> tuple[Tensor, ...]:
        """[B, V, D], [B, S, D] -> the same shapes; the token alone [B, 1, D] in a decode step."""
        *originals, sequence = state
        return (*originals, *self.inner(sequence))


class CrossLayer(nn.Module):
    """S-Attn, then both streams read the originals, then the MLP."""

    visual_keys: Tensor
    visual_values: Tensor

    def __init__(self, inner: Any, parts: "LayerParts", context: Context, place: Place) -> None:
        super().__init__()
        self.inner, self.parts, self.kernel = inner, parts, context.kernel
        # In tiles under ``tiled``.
        self.mlp = parts.mlp if isinstance(parts.mlp, OwnTiles) else context.in_tiles(parts).mlp
        self.layout, originals = place.layout, place.originals
        self.num_visual = originals.num_visual
        self.modules_of = nn.ModuleDict()
        for stream in ("visual", "text"):
            self.modules_of[stream] = context.create(lambda: CrossAttention(parts))
            randomise(self.modules_of[stream])
        zero = torch.zeros(1, dtype=context.dtype, device=context.device)
        self.visual_gate, self.text_gate = nn.Parameter(zero), nn.Parameter(zero.clone())
        self.scores = Scores(parts.scale, parts.softcap, causal=False)
        self.prefixes = {"visual": pooled_prefixes(place), "text": text_reads(place)}
        self.decode = context.cell.pass_ == "decode"
        if self.decode:
            self.prefixes["text"] = (Prefix(0, 1, self.num_visual),)
            for name in ("keys", "values"):
                cache = context.cache(parts, self.num_visual, name)
                self.register_buffer(f"visual_{name}", cache, persistent=False)

    def forward(self, *state: Tensor) -> tuple[Tensor, ...]:
        """[B, V, D], [B, S, D] -> the same shapes; the token alone [B, 1, D] in a decode step."""
        *streams, sequence = state
        parts = self.parts
        hidden = sequence + self._attended(parts.input_norm(sequence))
        if self.num_visual:
            hidden = hidden + self._read(streams, parts.mlp_norm(hidden))
        return (*streams, parts.scaled(hidden + parts.feed(self.mlp, hidden)))

    def _attended(self, x: Tensor) -> Tensor:
        """The layer's own attention over normed rows, as transformers computes it."""
        arguments = {**self.inner.arguments(), **self.parts.alone}
        out = self.parts.attention(hidden_states=x, **arguments)[0]
        norm = self.parts.post_attention_norm
        return out if norm is None else norm(out)

    def _read(self, kept: list[Tensor], y: Tensor) -> Tensor:
        """What both streams add: [B, S, D]."""
        if self.decode:
            attended = self._cross("text", y, (self.visual_keys, self.visual_values))
            return torch.tanh(self.text_gate) * attended
        streams = dict(zip(("visual", "text"), self.layout.split(y), strict=True))
        gates = {"visual": self.visual_gate, "text": self.text_gate}
        for stream, rows in streams.items():
            if rows.shape[1]:
                attended = self._cross(stream, rows, self._keys(stream, kept[0]))
                with region("merge"):
                    streams[stream] = torch.tanh(gates[stream]) * attended
        return self.layout.join(streams["visual"], streams["text"])

    def _keys(self, stream: str, originals: Tensor) -> tuple[Tensor, Tensor]:
        module: Any = self.modules_of[stream]
        with region("projections"):
            return (
                self._heads(module.k_proj(originals), self.parts.num_kv_heads),
                self._heads(module.v_proj(originals), self.parts.num_kv_heads),
            )

    def _cross(self, stream: str, y: Tensor, keys: tuple[Tensor, Tensor]) -> Tensor:
        module: Any = self.modules_of[stream]
        with region("projections"):
            q = self._heads(module.q_proj(y), self.parts.num_heads)
        name = "V2V" if stream == "visual" else "T2V"
        with region(name):
            partial = self.kernel.cross(Branch(q, *keys, name), self.prefixes[stream], self.scores)
        return partial.transpose(1, 2).flatten(2)

    def _heads(self, x: Tensor, heads: int) -> Tensor:
        return x.unflatten(-1, (heads, self.parts.head_dim)).transpose(1, 2)


def pooled_prefixes(place: Place) -> tuple[Prefix, ...]:
    """The originals that each run of pooled rows sees: up to their segment's end."""
    pooled, originals = place.layout.visual_segments, place.originals.visual_segments
    return tuple(
        Prefix(p.offset, p.offset + p.length, o.offset + o.length)
        for p, o in zip(pooled, originals, strict=True)
    )


def text_reads(place: Place) -> tuple[Prefix, ...]:
    """The originals that each run of text rows sees: those before it."""
    return text_prefixes(place.originals)


class CrossLMM(SAttn):
    name = "cross_lmm"
    lacks = "it runs attention and MLP of a layer apart, of which it has no form with these"
    projections = "the projections of its cross-attention"
    between = True
    keeps_cache = False
    shared_states = 1
    stacks = False

    def check(self, cell: Cell) -> None:
        faults = Faults()
        with faults:
            super().check(cell)
        if cell.reduce is not None and cell.scope == "lvlm":
            faults.add(f"reduce {cell.reduce}: {self.name} pools the tower's features itself")
        if cell.visual_positions:
            faults.add(f"visual_positions: {self.name} has two streams of visual tokens")
        faults.raise_all()

    def pooling(self) -> Reducer:
        pool = copy(REDUCERS["pool"])
        pool.settings = {"side": self.settings["pool"]}
        return pool

    def role(self, index: int) -> str:
        return CROSS if (index + 1) % int(self.settings["every"]) == 0 else ""

    def places(self, model: "Resolved", cell: Cell, layout: Layout) -> tuple[Place, ...]:
        count, every = model.config.num_hidden_layers, int(self.settings["every"])
        originals = entering_layout(cell)
        if len(originals.visual_segments) != len(layout.visual_segments):
            raise RequestError(
                f"layout {cell.layout}: {len(originals.visual_segments)} visual segments, but "
                f"pool={self.settings['pool']} leaves {layout.num_visual} tokens for them"
            )
        if every > count:
            raise RequestError(f"every={every}: {cell.model} has {count} layers")
        return tuple(
            replace(place, beside=originals) for place in super().places(model, cell, layout)
        )

    def reads_visual(self, place: Place) -> bool:
        return place.role == CROSS

    def refuse(self, parts: "LayerParts", place: Place, window_bites: bool) -> None:
        wide = parts.num_heads * parts.head_dim
        if wide != parts.hidden_size:
            raise Unsupported(
                f"{self.name} has no output projection, and the heads of "
                f"{parts.attention.config.model_type} are {wide} wide beside a hidden size of "
                f"{parts.hidden_size}"
            )

    def layer(self, parts: "LayerParts", context: Context, place: Place) -> nn.Module:
        if place.role == CROSS:
            context.kernel.check(parts, True, False)
            context.require(parts, True)
        plain = SAttnDecode if context.cell.pass_ == "decode" else SAttnLayer
        inner = plain(parts, context, place)
        if place.role == CROSS:
            return CrossLayer(inner, parts, context, place)
        return PlainLayer(inner)

    def state(self, visual: "Visual", text: Tensor, layout: Layout) -> tuple[Tensor, ...]:
        """``visual`` are the originals and the pooled tokens; without images the first alone."""
        originals, pooled = visual if isinstance(visual, tuple) else (visual, visual)
        return originals, layout.join(pooled, text)

    def rows(self, state: tuple[Tensor, ...], layout: Layout, text_rows: Tensor | None) -> Tensor:
        return state[1] if text_rows is None else state[1][:, text_rows]

    def entering(self, parts: "LayerParts", place: Place) -> list[tuple[int, int]]:
        d = parts.hidden_size
        return [(place.originals.num_visual, d), (place.layout.length, d)]

    def pairs(self, place: Place, window: int | None) -> Pairs:
        pairs = super().pairs(place, window)
        if place.role != CROSS or not place.originals.num_visual:
            return pairs
        prefixes = (*pooled_prefixes(place), *text_reads(place))
        visual_pairs = sum((p.stop - p.start) * p.length for p in prefixes)
        return Pairs(pairs.dense + visual_pairs, pairs.allowed + visual_pairs)

    def linear_flops(self, parts: "LayerParts", place: Place, cell: Cell) -> int:
        flops = super().linear_flops(parts, place, cell)
        visual = place.originals.num_visual
        if place.role != CROSS or not visual:
            return flops
        queries = place.layout.length * token_flops(parts, kv=False, rest=False)
        streams = (place.layout.num_visual > 0) + (place.layout.num_text > 0)
        keys = visual * streams * 4 * parts.hidden_size * parts.num_kv_heads * parts.head_dim
        return flops + cell.batch * (queries + keys)

    def extra_parameters(self, parts: "LayerParts", place: Place) -> int:
        if place.role != CROSS:
            return 0
        heads = parts.num_heads + 2 * parts.num_kv_heads
        return 2 * parts.hidden_size * heads * parts.head_dim + 2

    def cached(self, place: Place, window: int | None) -> Cached:
        cached = super().cached(place, window)
        if place.role != CROSS:
            return cached
        return replace(cached, visual=cached.visual + place.originals.num_visual)

    def token_flops(self, parts: "LayerParts", place: Place, cached: Cached) -> int:
        reads = place.role == CROSS and place.originals.num_visual
        return token_flops(parts) + (token_flops(parts, kv=False, rest=False) if reads else 0)


SYSTEMS.add("cross_lmm", CrossLMM())
