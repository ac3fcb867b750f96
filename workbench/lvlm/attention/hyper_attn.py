"""Hyper attention (mPLUG-Owl3, arXiv 2408.04840): a few layers of text read visual keys as well.

Only text is in the sequence. The adapter's visual embeddings O are never updated. In layers
i ≥ ``first`` with (i − first) mod ``every`` = 0, [K_v, V_v] = W_kv·norm(O) + b, with the layer's
own input norm and, where it has one, its norm of keys. K_v is rotated at one place for all tokens
of an image, that of its last token. ``gate`` says how the two meet:

- ``joint`` (release of November 2024): one softmax over the images before a row and its text;
- ``adaptive`` (paper): (1−β)·SA + β·XA before W_o, β = sigmoid(w·norm(x) + c), one a token;
- ``channel`` (release of July 2024): β = sigmoid(u), one a channel.

O(|V|), in the hyper layers alone. It gives up V2V and every update of the visual tokens, and needs
training. At scopes layer and decoder a visual segment is one image.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from workbench.lvlm.attention import SYSTEMS, System
from workbench.lvlm.attention.costs import Cached, Pairs, token_flops
from workbench.lvlm.attention.decomposed import DecomposedLayer, prefix_rows
from workbench.lvlm.attention.pairs import cross_pairs, text_prefixes
from workbench.lvlm.attention.reading import TextCosts, TextLayer
from workbench.lvlm.attention.row_inputs import RowInputs
from workbench.lvlm.context import Context
from workbench.lvlm.kernels import Branch, Prefix, Scores
from workbench.lvlm.layout import Layout, sight_end
from workbench.lvlm.parts.marks import region
from workbench.lvlm.place import Place
from workbench.lvlm.towers import tower_of
from workbench.lvlm.weights.random import randomise
from workbench.vocabulary.cell import Cell

if TYPE_CHECKING:
    from workbench.lvlm.models import Resolved
    from workbench.lvlm.parts import LayerParts

HYPER = "hyper"
"""The role of a layer that reads visual keys."""


class HyperLayer(DecomposedLayer):
    """``joint``: one softmax over the images and the text."""

    def __init__(
        self, system: System, parts: "LayerParts", context: Context, place: Place
    ) -> None:
        super().__init__(system, parts, context, place)
        narrow = parts.num_kv_heads * parts.head_dim
        self.kv_proj_img = context.create(lambda: nn.Linear(parts.hidden_size, 2 * narrow))
        randomise(self.kv_proj_img)
        if self.decode:
            return
        self.visual_tables = context.rope(place.index, "image")
        if self.scores.window is not None:
            self.scores = replace(self.scores, other=context.image_places())

    def visual_stream(self, visual: Tensor, more: RowInputs) -> tuple[Tensor, Tensor, Tensor]:
        parts, x = self.parts, self.parts.input_norm(visual)
        with region("projections"):
            heads = self.kv_proj_img(x).unflatten(-1, (2 * parts.num_kv_heads, parts.head_dim))
        key, value = heads.chunk(2, 2)
        if parts.k_norm is not None:
            key = parts.k_norm(key)
        return visual, key.transpose(1, 2), value.transpose(1, 2)

    def other(self, q: Tensor, q_rope: Tensor, key: Tensor, value: Tensor) -> Branch:
        return Branch(q_rope, key, value, "T2V")


class WeightedLayer(HyperLayer):
    """SA and XA have a softmax each; ``weight`` says how much of XA a row takes."""

    def __init__(
        self, system: System, parts: "LayerParts", context: Context, place: Place
    ) -> None:
        super().__init__(system, parts, context, place)
        self.sees: Tensor | None = None
        if not self.decode:
            prefixes = seeing(place.layout, self.scores.window)
            self.sees = prefix_rows(prefixes, self.num_rows, context)

    def merge(self, own: Branch, other: Branch, scores: Scores, x: Tensor) -> Tensor:
        sa, xa = self.apart(own, other, scores)
        with region("merge"):
            beta = self.weight(x)
            return sa + (beta if self.sees is None else beta * self.sees) * (xa - sa)

    def weight(self, x: Tensor) -> Tensor:
        """β of normed rows [B, T, D], broadcast over [B, H, T, K]."""
        raise NotImplementedError


class AdaptiveLayer(WeightedLayer):
    def __init__(
        self, system: System, parts: "LayerParts", context: Context, place: Place
    ) -> None:
        super().__init__(system, parts, context, place)
        self.beta = context.create(lambda: nn.Linear(parts.hidden_size, 1))
        randomise(self.beta)

    def weight(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.beta(x))[:, None]


class ChannelLayer(WeightedLayer):
    def __init__(
        self, system: System, parts: "LayerParts", context: Context, place: Place
    ) -> None:
        super().__init__(system, parts, context, place)
        shape = (parts.num_heads, 1, parts.head_dim)
        self.gate = nn.Parameter(torch.zeros(shape, dtype=context.dtype, device=context.device))

    def weight(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.gate)


LAYERS = {"joint": HyperLayer, "adaptive": AdaptiveLayer, "channel": ChannelLayer}


def seeing(layout: Layout, window: int | None) -> tuple[Prefix, ...]:
    """The rows of text that see an image by its place, and how much stands before them."""
    prefixes = []
    for row in layout.text_segments:
        before = [s.start + s.length - 1 for s in layout.visual_segments if s.start < row.start]
        near = _rows_near(row.start, row.length, before[-1], window) if before else 0
        if near:
            prefixes.append(Prefix(row.offset, row.offset + near, row.visual_before))
    return tuple(prefixes)


class HyperAttn(TextCosts):
    name = "hyper_attn"
    lacks = ""
    projections = "kv_proj_img"
    own_keys = ("visual",)

    def visual_handed(self, cell: Cell) -> int:
        return 0

    def places(self, model: "Resolved", cell: Cell, layout: Layout) -> tuple[Place, ...]:
        layout, cross_layers = whole_images(model, cell, layout), self.chosen(model, cell)
        return tuple(
            Place(i, layout, HYPER if i in cross_layers else "")
            for i in range(model.config.num_hidden_layers)
        )

    def reads_visual(self, place: Place) -> bool:
        return place.role == HYPER

    def layer(self, parts: "LayerParts", context: Context, place: Place) -> nn.Module:
        kind = LAYERS[str(self.settings["gate"])] if place.role == HYPER else TextLayer
        return kind(self, parts, context, place)

    def pairs(self, place: Place, window: int | None) -> Pairs:
        pairs = super().pairs(place, window)
        if place.role != HYPER:
            return pairs
        layout = place.layout
        cross = sum(
            key.length * _rows_near(row.start, row.length, key.start + key.length - 1, window)
            for row in layout.text_segments
            for key in layout.visual_segments
            if key.start < row.start
        )
        return Pairs(pairs.dense + cross_pairs(layout), pairs.allowed + cross)

    def linear_flops(self, parts: "LayerParts", place: Place, cell: Cell) -> int:
        flops, layout = super().linear_flops(parts, place, cell), place.layout
        if place.role != HYPER:
            return flops
        keys = 4 * parts.hidden_size * parts.num_kv_heads * parts.head_dim
        flops += cell.batch * layout.num_visual * keys
        rows = layout.num_text if text_prefixes(layout) else 0
        return flops + cell.batch * rows * self._weight_flops(parts)

    def _weight_flops(self, parts: "LayerParts") -> int:
        """Matmul FLOPs of β, of one row."""
        return 2 * parts.hidden_size if self.settings["gate"] == "adaptive" else 0

    def extra_parameters(self, parts: "LayerParts", place: Place) -> int:
        if place.role != HYPER:
            return 0
        wide, narrow = (heads * parts.head_dim for heads in (parts.num_heads, parts.num_kv_heads))
        gate = {"joint": 0, "adaptive": parts.hidden_size + 1, "channel": wide}
        return 2 * narrow * (parts.hidden_size + 1) + gate[str(self.settings["gate"])]

    def cached(self, place: Place, window: int | None) -> Cached:
        cached, layout = super().cached(place, window), place.layout
        if place.role != HYPER:
            return cached
        near = (
            image.length * _rows_near(layout.length, 1, image.start + image.length - 1, window)
            for image in layout.visual_segments
        )
        return replace(cached, visual=sum(near))

    def token_flops(self, parts: "LayerParts", place: Place, cached: Cached) -> int:
        return token_flops(parts) + (self._weight_flops(parts) if cached.visual else 0)


def _rows_near(start: int, count: int, key: int, window: int | None) -> int:
    """How many of ``count`` rows from ``start`` on see a key that stands before them."""
    return count if window is None else max(0, min(count, sight_end(key, window) - start))


def whole_images(model: "Resolved", cell: Cell, layout: Layout) -> Layout:
    """The layout with a segment an image, where scope lvlm has images that are all alike.

    Where they differ in size (Qwen2.5-VL) there is no window, and the costs are the same.
    """
    if cell.scope != "lvlm" or not layout.num_visual:
        return layout
    tower = tower_of(model, cell.tower)
    if tower.has_positions:
        return layout
    each = layout.num_visual * tower.tokens_each // cell.num_visual
    parts = []
    for segment in layout.segments:
        if not segment.visual:
            parts.append(f"T{segment.length}")
            continue
        at, end = segment.offset, segment.offset + segment.length
        while at < end:
            stop = min(end, (at // each + 1) * each)
            parts.append(f"V{stop - at}")
            at = stop
    return Layout(layout.num_visual, layout.num_text, ",".join(parts))


SYSTEMS.add("hyper_attn", HyperAttn())
