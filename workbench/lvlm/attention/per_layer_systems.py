"""Every other system of a family that gives each layer an embedding of each id (Gemma 4's E2B).

A state is, in this order: the embeddings for every layer [B, n, L, P] of each stream, keys and
values [B, G, n, K] of each layer so far whose later layers take them, stream by stream, and the
system's own state. Behind its MLP a row, visual or text, gets what its embedding for that layer
adds. A layer that takes keys and values projects queries alone: text reads the other layer's text
keys and visual keys, rotated where the system rotates them, and the diagonal V2V is W_o over its
visual values. Nothing of such a layer is cached.
"""

from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from workbench.lvlm.attention import System
from workbench.lvlm.attention.costs import Cached
from workbench.lvlm.attention.per_layer import Taking, kinds_given, refuse_ranks
from workbench.lvlm.attention.row_inputs import RowInputs, run_real
from workbench.lvlm.attention.s_attn import SAttnDecode, SAttnLayer
from workbench.lvlm.context import Context
from workbench.lvlm.layout import Layout
from workbench.lvlm.place import Place
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.errors import Unsupported

if TYPE_CHECKING:
    from workbench.lvlm.models import Resolved
    from workbench.lvlm.models.around import Around
    from workbench.lvlm.parts import LayerParts


class LayerBeside(nn.Module):
    """Around a layer of a system: its state in, and what of it the layer takes.

    A layer ``alone`` has the embeddings for itself and the keys and values that it takes, and
    gives its own state, and its keys and values where others take them.
    """

    def __init__(
        self,
        inner: nn.Module,
        system: "BesideSystem",
        parts: "LayerParts",
        context: Context,
        place: Place,
    ) -> None:
        super().__init__()
        self.inner, self.alone = inner, context.cell.scope == "layer"
        self.number = 0 if self.alone else place.index
        """Of its own among the embeddings for layers."""
        self.streams, self.own = system.embedded(context.cell), system.tensors(context.cell)
        self.handed = system.handed(place, context.cell)
        self.gives, self.takes = parts.gives_keys, parts.takes_keys
        kind = parts.attention.layer_type
        kinds = [kind] if self.alone else kinds_given(parts, place)
        self.first = kinds.index(kind) * sum(self.handed.values()) if self.takes else 0
        """Of the keys and values that it takes, among those in the state."""

    def forward(self, *state: Tensor) -> tuple[Tensor, ...]:
        """A state -> the next layer's."""
        count = len(self.streams)
        rows, keys, own = state[:count], state[count : -self.own], state[-self.own :]
        embedded = (x[:, :, self.number] for x in rows)
        taken: Mapping[str, tuple[Tensor, ...]] = {}
        if self.takes:
            tensors = iter(keys[self.first :])
            taken = {stream: tuple(islice(tensors, n)) for stream, n in self.handed.items()}
        more = RowInputs(
            dict(zip(self.streams, embedded, strict=True)), taken, {} if self.gives else None
        )
        inner: Any = self.inner
        if isinstance(inner, (SAttnLayer, SAttnDecode, Taking)):
            after = (run_real(inner.layer, own[0], inner.arguments(), more),)
        else:
            after = inner(*own, more=more)
        given = more.given or {}
        handed = [x for stream in self.handed for x in given.get(stream, ())]
        return (*handed, *after) if self.alone else (*rows, *keys, *handed, *after)


class BesideSystem(System):
    """Costs of a system on such a family; ``beside`` puts it before a system's own class."""

    stacks = False

    def check(self, cell: Cell) -> None:
        super().check(cell)
        refuse_ranks(cell)

    def embedded(self, cell: Cell) -> tuple[str, ...]:
        """The streams whose rows have embeddings for every layer."""
        if not self.decomposed:
            return ("sequence",)
        return ("text",) if self.text_only or cell.pass_ == "decode" else ("visual", "text")

    def tensors(self, cell: Cell) -> int:
        """How many the system's own state is of."""
        return 2 if self.decomposed and cell.pass_ != "decode" else 1

    def handed(self, place: Place, cell: Cell) -> dict[str, int]:
        """How many tensors of each stream a layer hands on that later ones take from."""
        if not self.decomposed:
            return {"sequence": 2}
        there = {"visual": place.layout.num_visual, "text": place.layout.num_text}
        if cell.pass_ == "decode":
            there["text"] += 1
        counts = {"visual": self.visual_handed(cell), "text": 2}
        return {s: counts[s] for s, tokens in there.items() if tokens and counts[s]}

    def places(self, model: "Resolved", cell: Cell, layout: Layout) -> tuple[Place, ...]:
        """No layer reads a visual row behind the last one that makes keys and values of it."""
        places = super().places(model, cell, layout)
        if not cell.skip_last or "visual" in self.own_keys:
            return places
        config: Any = model.config
        last = max(i for i, mode in enumerate(config.kv_sharing_modes) if mode != "reuse")
        return tuple(replace(p, keys_only=p.index >= last) for p in places)

    def layer(self, parts: "LayerParts", context: Context, place: Place) -> nn.Module:
        inner = super().layer(parts, context, place)
        return LayerBeside(inner, self, parts, context, place)

    def layer_states(
        self, parts: "LayerParts", place: Place, cell: Cell
    ) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
        hidden, _ = super().layer_states(parts, place, cell)
        width = parts.attention.config.hidden_size_per_layer_input
        rows = hidden[-len(self.embedded(cell)) :]
        own = [(batch, tokens, 1, width) for batch, tokens, _ in rows]
        keys = [
            (cell.batch, parts.num_kv_heads, tokens, parts.head_dim)
            for tokens in self._tokens_handed(parts, place, cell)
        ]
        before, after = (keys if there else [] for there in (parts.takes_keys, parts.gives_keys))
        return [*own, *before, *hidden], [*after, *hidden]

    def _tokens_handed(self, parts: "LayerParts", place: Place, cell: Cell) -> Iterator[int]:
        """Tokens of each tensor that is handed on."""
        layout = place.layout
        tokens = {"visual": layout.num_visual, "text": layout.num_text}
        if cell.pass_ == "decode":
            cached = self.cached(place, parts.window)
            tokens = {"visual": cached.visual, "text": cached.text + 1}
        tokens["sequence"] = sum(tokens.values())
        for stream, count in self.handed(place, cell).items():
            yield from (tokens[stream] for _ in range(count))

    def enter(
        self, around: "Around", state: tuple[Tensor, ...], ids: Tensor, layout: Layout | None
    ) -> tuple[Tensor, ...]:
        if layout is None or self.text_only:
            *others, text = state
            per_layer, text = around.enter(text, ids)
            return per_layer, *others, text
        visual_ids = ids.new_full((ids.shape[0], layout.num_visual), around.visual_id)
        if not self.decomposed:
            return around.enter(state[0], layout.join(visual_ids, ids))
        pairs = [around.enter(x, own) for x, own in zip(state, (visual_ids, ids), strict=True)]
        return tuple(per_layer for per_layer, _ in pairs) + tuple(rows for _, rows in pairs)

    def rows(self, state: tuple[Tensor, ...], layout: Layout, text_rows: Tensor | None) -> Tensor:
        own = state[-2:] if self.decomposed else state[-1:]
        return super().rows(own, layout, text_rows)

    def linear_flops(self, parts: "LayerParts", place: Place, cell: Cell) -> int:
        layout = place.layout
        rows = layout.num_text
        if not (self.text_only or place.keys_only):
            rows += layout.num_visual
        added = 2 * cell.batch * rows * parts.own_input_elements
        return super().linear_flops(parts, place, cell) + added

    def token_flops(self, parts: "LayerParts", place: Place, cached: Cached) -> int:
        return super().token_flops(parts, place, cached) + 2 * parts.own_input_elements

    def cache_elements(self, parts: "LayerParts", place: Place, cell: Cell) -> int:
        if not parts.takes_keys:
            return super().cache_elements(parts, place, cell)
        cached, width = self.cached(place, parts.window), 2 * parts.num_kv_heads * parts.head_dim
        return cell.batch * width * sum(getattr(cached, stream) for stream in self.own_keys)


def beside_of(system: System, model: "Resolved") -> System:
    """The system on a model whose ids have an embedding for every layer.

    Raises Unsupported where it has no place there.
    """
    config: Any = model.config
    if system.lacks:
        shared = config.num_kv_shared_layers
        others = f", and its last {shared} layers take keys and values of others" if shared else ""
        raise Unsupported(
            f"{system.name}: ids of {model.family.model_type} have an embedding for every layer "
            f"(hidden_size_per_layer_input {config.hidden_size_per_layer_input}){others}; "
            f"{system.lacks}; use s_attn"
        )
    on_model, kind = copy(system), type(system)
    on_model.__class__ = type(f"Beside{kind.__name__}", (BesideSystem, kind), {})
    # Those that a layer changes are last.
    on_model.shared_states = -2 if system.decomposed and not system.text_only else -1
    return on_model
