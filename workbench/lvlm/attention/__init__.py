"""Attention systems by name: one file each, written once for every family on top of LayerParts.

A layer of a system maps a state to a state. The state of S-Attn is the sequence [B, S, D]; that of
a decomposed system is the visual stream [B, V, D] and the text stream [B, T, D].
"""

from collections.abc import Mapping
from copy import copy
from fractions import Fraction
from typing import TYPE_CHECKING, Literal

from workbench.lvlm.attention.costs import Cached, Pairs, expansion_flops, token_flops
from workbench.lvlm.caches.narrow import cache_bytes
from workbench.lvlm.layout import Layout
from workbench.lvlm.place import Place
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.errors import Faults, Unsupported
from workbench.vocabulary.registry import Registry
from workbench.vocabulary.systems import Value, entry, settings_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from workbench.lvlm.context import Context
    from workbench.lvlm.kernels import Kernel
    from workbench.lvlm.models import Resolved
    from workbench.lvlm.models.around import Around
    from workbench.lvlm.parts import LayerParts
    from workbench.lvlm.reduce import Reducer

    Visual = Tensor | tuple[Tensor, Tensor]
    """Visual embeddings, or those of a system's ``pooling``: the originals and what is left."""

SYSTEMS: "Registry[System]" = Registry("attention system", __name__)

Sharing = Literal["", "rows", "text"]
"""What ranks that share a sequence each have of it."""

STREAM_OPTIONS = ("fold", "chunk", "skip_last", "tiled")
"""The cell options that only some systems have."""


def system_of(cell: Cell, model: "Resolved | None" = None) -> "System":
    """The system that a cell names, under its settings, as it is on that model where one is given.

    Raises RequestError for an unknown name, Unsupported where the model has no place for it.
    """
    system = SYSTEMS[cell.attention]
    system = copy(system if model is None else system.on(model))
    system.settings = settings_of("attention", cell.attention, cell.settings)
    return system


class System:
    """One attention system. Subclasses say how a layer runs and what it costs."""

    name: str
    decomposed = True
    options: tuple[str, ...] = ("fold", "chunk", "skip_last", "tiled")
    adapter = True
    """Whether visual tokens are brought to the decoder's width before its first layer."""
    shared_states = 0
    """Leading tensors of the state that every layer reads and none changes; where it is below 0,
    all but so many of the last."""
    lone_layer = True
    """Whether one layer alone shows what the system does, so that scope ``layer`` serves it."""

    keeps_cache = False
    """Whether a prefill can keep its keys and values (a cell's ``cache``)."""

    mixes = False
    """Whether it serves models of which some layers are linear and the others gate their output:
    it changes the others alone, and between the layers there is a row for every token."""

    norms_turned = False
    """Whether it serves families that norm queries and keys once they are rotated."""

    modal = False
    """Whether it serves families whose visual rows meet experts of their own."""

    between = False
    """Whether it puts something between a layer's attention and its MLP, or gates each alone: a
    layer that runs the two side by side has no place for it."""

    projections = ""
    """What it has of its own in the form of a layer's queries, keys or values. Families that make
    these of latents are refused: no source says what form it would have there."""

    stacks = True
    """Whether its state has a row for every visual token between the layers, to which features
    of the tower can be added (deepstack)."""

    ring: Sharing = ""
    """How several ranks share its sequence (``--ring``): each has some ``rows`` of it and sees the
    keys of all in turn; or each has some visual rows and all ``text``; or not at all."""

    lacks: str = "it says nothing of these"
    """Why it has no place on a family whose ids have an embedding for every layer and whose last
    layers take the keys and values of others; empty where it has one."""

    own_keys: tuple[str, ...] = ()
    """Streams of which it makes keys and values of its own, by no projection of the model's."""

    settings: Mapping[str, Value] = {}
    """The values of its own settings, by name."""

    @property
    def text_only(self) -> bool:
        """Whether no visual row reaches the LM head (HiMix), so that logits are of text alone."""
        described = entry("attention", self.name)
        return described is not None and described.logits == "text"

    def share(self, name: str) -> Fraction:
        """One of its settings, exactly the decimal that it is written as."""
        return Fraction(str(self.settings[name]))

    def on(self, model: "Resolved") -> "System":
        """The system on a model; raises Unsupported where it has no place for it."""
        family = model.family
        if family.cross_layers(model.config):
            raise Unsupported(
                f"{self.name}: {family.model_type} has no visual rows in its sequence; layers of "
                f"its own read the images, {self.instead}; use s_attn, the model as it is"
            )
        plain_only = family.plain_only(model.config)
        if plain_only and self.name != "s_attn":
            raise Unsupported(
                f"{self.name}: {family.model_type} {plain_only}, which only the layer as "
                "it is expresses; use s_attn"
            )
        if family.latent and self.projections:
            raise Unsupported(
                f"{self.name}: {family.model_type} makes queries, keys and values of latents, and "
                f"no source says what {self.projections} would be there; use s_attn or d_attn"
            )
        if family.per_layer(model.config):
            from workbench.lvlm.attention.per_layer_systems import beside_of

            return beside_of(self, model)
        return self

    instead = "and nothing there has visual keys and queries alike"
    """What a refusal says of such layers."""

    def check(self, cell: Cell) -> None:
        """Raise RequestError for the options of a cell that this system does not have."""
        faults = Faults()
        lacking = []
        for option in STREAM_OPTIONS:
            with faults:
                if getattr(cell, option) and option not in self.options:
                    lacking.append(option)
        if lacking:
            faults.add(
                f"{', '.join(lacking)}: {self.name} has no such option; it has "
                f"{', '.join(self.options) or 'none of ' + ', '.join(STREAM_OPTIONS)}"
            )
        for option in STREAM_OPTIONS:
            with faults:
                if getattr(cell, option) and cell.pass_ == "decode":
                    faults.add(f"{option}: a decode step is one token and has no use for it")
        with faults:
            if cell.cache and not self.keeps_cache:
                faults.add(
                    f"cache: what a prefill of {self.name} keeps is not modelled; leave it out"
                )
        with faults:
            if cell.cache_dtype and (self.decomposed or not self.keeps_cache):
                faults.add(
                    f"cache_dtype {cell.cache_dtype}: no kernel here reads such a cache of "
                    f"{self.name}; leave it out, or use s_attn"
                )
        with faults:
            if cell.scope == "layer" and not self.lone_layer:
                faults.add(
                    f"scope layer: {self.name} acts between layers; use scope decoder or lvlm"
                )
        with faults:
            if cell.skip_last and cell.scope == "layer":
                faults.add("skip_last: a single layer has no last layer; use scope decoder")
        faults.raise_all()

    def role(self, index: int) -> str:
        """This system's word for what the model's layer of that index does."""
        return ""

    def places(self, model: "Resolved", cell: Cell, layout: Layout) -> tuple[Place, ...]:
        """The layers in the order in which the decoder runs them, given the tokens that enter.

        By default every layer of the model once, on all tokens.
        """
        count = model.config.num_hidden_layers
        return tuple(
            Place(i, layout, self.role(i), keys_only=cell.skip_last and i == count - 1)
            for i in range(count)
        )

    def single(self, model: "Resolved", places: tuple[Place, ...], number: int | None) -> Place:
        """The place that scope ``layer`` builds: that number, or the first that sees everything.

        It is one of those that read visual tokens, and among them one without a window.
        """
        if number is not None:
            return places[number]
        reading = [p for p in places if self.reads_visual(p)] or places
        wide = (p for p in reading if model.layer_type(p.index) == "full_attention")
        return next(wide, reading[0])

    def reads_visual(self, place: Place) -> bool:
        """Whether the layer of that place reads visual tokens."""
        return True

    def refuse(self, parts: "LayerParts", place: Place, window_bites: bool) -> None:
        """Raise Unsupported, naming system and feature, where it cannot express the layer.

        ``window_bites`` says whether the layer's window hides a pair that causality shows.
        """

    def layer(self, parts: "LayerParts", context: "Context", place: Place) -> "nn.Module":
        """The layer of that place under this system: state -> state, real weights inside."""
        raise NotImplementedError

    def state(self, visual: "Visual", text: "Tensor", layout: Layout) -> "tuple[Tensor, ...]":
        """The state that enters the first layer."""
        assert not isinstance(visual, tuple), "only a system with a pooling has two streams"
        return visual, text

    def visual_handed(self, cell: Cell) -> int:
        """Tensors of visual tokens that a layer hands on where later ones take its keys."""
        return 2

    def enter(
        self, around: "Around", state: "tuple[Tensor, ...]", ids: "Tensor", layout: Layout | None
    ) -> "tuple[Tensor, ...]":
        """The state behind what a family has before its first layer, of text ids [B, T].

        ``layout`` is None where the state is of text alone.
        """
        raise NotImplementedError

    def add_visual(
        self, state: "tuple[Tensor, ...]", features: "Tensor", visual_rows: "Tensor"
    ) -> "tuple[Tensor, ...]":
        """The state with features [B, V, D] added to its visual tokens (deepstack).

        ``visual_rows`` are their indices in the sequence, int64 [V].
        """
        first, *others = state
        if self.decomposed:
            return first + features, *others
        return first.index_add(1, visual_rows, features), *others

    def rows(
        self, state: "tuple[Tensor, ...]", layout: Layout, text_rows: "Tensor | None"
    ) -> "Tensor":
        """Hidden states that reach the LM head: all rows in sequence order, or text rows.

        ``text_rows`` are the indices of text in the sequence, None where all rows are wanted.
        """
        if self.text_only:
            return state[-1]
        if self.decomposed:
            return state[1] if text_rows is not None else layout.join(*state)
        return state[0] if text_rows is None else state[0][:, text_rows]

    def left(self, state: "tuple[Tensor, ...]", text_rows: "Tensor | None") -> "Tensor | None":
        """Where the rows of ``rows`` stood in the sequence, int64 [B, n]; None if all are there.

        Only a system whose tokens leave between the layers has an answer.
        """
        return None

    def num_rows(self, layout: Layout, last: Place) -> int:
        """Rows of a sample that reach the LM head where all are wanted, after the last place."""
        return layout.length

    def pooling(self) -> "Reducer | None":
        """A reducer of the system's own: it makes the visual tokens of the sequence.

        The embeddings that it reads stay in the state, beside the sequence.
        """
        return None

    def entering(self, parts: "LayerParts", place: Place) -> list[tuple[int, int]]:
        """(tokens, width) of every tensor of the state that enters a layer of these parts."""
        d, layout = parts.hidden_size, place.layout
        if not self.decomposed:
            return [(layout.length, d)]
        return [(layout.num_visual, self.visual_width(parts)), (layout.num_text, d)]

    def layer_states(
        self, parts: "LayerParts", place: Place, cell: Cell
    ) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
        """Shapes of what enters a layer that runs alone, and of what it makes of that."""
        if cell.pass_ == "decode":
            shapes: list[tuple[int, ...]] = [(cell.batch, 1, parts.hidden_size)]
        else:
            shapes = [(cell.batch, *shape) for shape in self.entering(parts, place)]
        return shapes, shapes

    def pairs(self, place: Place, window: int | None) -> Pairs:
        """Query-key pairs of one layer."""
        raise NotImplementedError

    def pairs_by_branch(self, place: Place, window: int | None) -> dict[str, Pairs] | None:
        """``pairs`` by the marked part that computes them (V2V, T2V, …).

        Only of a system some of whose branches may lack a backward: visual rows that nothing
        reads after the last layer. None where all pairs are computed together.
        """
        return None

    def pairs_by_stream(self, place: Place, window: int | None) -> dict[str, Pairs] | None:
        """The same where only a part of the model is trained: text that nothing trained has
        entered lacks a backward in the first layer. None where the parts are computed together.
        """
        return None

    def skips(self, kernel: "Kernel", place: Place, window: int | None) -> bool:
        """Whether pairs that the mask hides are not computed in that layer."""
        return kernel.skips(self.window_bites(place, window))

    def skipped_share(self, kernel: "Kernel", place: Place, window: int | None) -> Fraction:
        """The share of such pairs that is not computed: of a system that computes some, less."""
        return Fraction(self.skips(kernel, place, window))

    def visual_width(self, parts: "LayerParts") -> int:
        """Width of a visual embedding that enters the first layer."""
        return parts.hidden_size

    def window_bites(self, place: Place, window: int | None) -> bool:
        """Whether the window hides a pair that causality would show."""
        return self.pairs(place, window).allowed < self.pairs(place, None).allowed

    def linear_flops(self, parts: "LayerParts", place: Place, cell: Cell) -> int:
        """Matmul FLOPs of one forward outside the attention pairs, whole batch."""
        raise NotImplementedError

    def choice_flops(self, parts: "LayerParts", place: Place, cell: Cell) -> int:
        """Those of ``linear_flops`` that choose and carry no gradient: a backward has none."""
        return 0

    def weightless_flops(self, parts: "LayerParts", place: Place, cell: Cell) -> tuple[int, int]:
        """Those of ``linear_flops`` between activations alone, and those of their backward, which
        a frozen layer has as well.
        """
        return 0, 0

    def extra_parameters(self, parts: "LayerParts", place: Place) -> int:
        """Parameters that the layer has beyond the family's own."""
        return 0

    def per_pair(self, parts: "LayerParts", place: Place) -> int:
        """FLOPs of one query-key pair of a layer, forward: a multiply-add an element of a head of
        keys, and one an element of a head of values.
        """
        return 2 * parts.num_heads * (parts.head_dim + parts.value_dim)

    def cached(self, place: Place, window: int | None) -> Cached:
        """Tokens whose keys and values one layer's cache holds after the place's tokens."""
        return Cached(*(place.layout.num_last(visual, window) for visual in (True, False)))

    def hidden(self, place: Place, window: int | None) -> Cached:
        """Those of them that the next token does not see, the first ones: a chunk's alone."""
        return Cached(*(place.layout.num_hidden(visual, window) for visual in (True, False)))

    def token_flops(self, parts: "LayerParts", place: Place, cached: Cached) -> int:
        """Matmul FLOPs of one decoded token of one sample outside the attention pairs."""
        return token_flops(parts) + expansion_flops(parts, cached)

    def decode_pairs(self, place: Place, cached: Cached) -> int:
        """Query-key pairs of one decoded token, were all that is cached seen."""
        return cached.visual + cached.text + 1

    def forward_flops(self, parts: "LayerParts", place: Place, cell: Cell) -> int:
        """Closed form of one layer's forward, dense: 2·m·n·k a matmul, ``per_pair`` a pair."""
        per_pair = self.per_pair(parts, place)
        if cell.pass_ == "decode":
            cached = self.cached(place, parts.window)
            hidden = self.hidden(place, parts.window)
            pairs = self.decode_pairs(place, cached) - hidden.visual - hidden.text
            return cell.batch * (self.token_flops(parts, place, cached) + per_pair * pairs)
        pairs = self.pairs(place, parts.window).dense
        return self.linear_flops(parts, place, cell) + cell.batch * per_pair * pairs

    def cache_elements(self, parts: "LayerParts", place: Place, cell: Cell) -> int:
        """Elements of one layer's keys and values after all tokens of the cell, whole batch."""
        cached = self.cached(place, parts.window)
        width = sum(heads * size for heads, size in parts.entry_shapes.values())
        return cell.batch * width * (cached.visual + cached.text)

    def cache_bytes(self, parts: "LayerParts", place: Place, cell: Cell, item: int) -> int:
        """Bytes of them; ``item`` is the size of an element where the cell names no other."""
        elements = self.cache_elements(parts, place, cell)
        rows = sum(heads for heads, _ in parts.entry_shapes.values())
        width = sum(heads * size for heads, size in parts.entry_shapes.values())
        return cache_bytes(cell, elements, elements * rows // width, item)


SYSTEMS.take_plugins("workbench.attention", System)
