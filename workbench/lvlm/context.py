"""What surrounds the layers of one workload: layout, kernel, masks and rotary tables.

Masks and tables are inputs: they are made once, before anything is counted or timed.
"""

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor, nn

from workbench.lvlm.caches.prefill import PrefillCache
from workbench.lvlm.kernels import Band, Kernel, Scores
from workbench.lvlm.kernels.modelled import tracing
from workbench.lvlm.layout import Layout
from workbench.lvlm.models import Resolved
from workbench.lvlm.offload import Offload
from workbench.lvlm.parts import LayerParts
from workbench.lvlm.parts.chunked import Tiled
from workbench.lvlm.parts.rope import hold_rope, tables
from workbench.lvlm.place import Place
from workbench.lvlm.weights.checkpoints import Checkpoint, read_checkpoint
from workbench.lvlm.weights.random import BLOCK, Made, create, randomise
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.pictures import Pictures

DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}

TILE = 4096
"""Tokens a tile of the MLP and the logits under ``--tiled``."""


@dataclass
class Context:
    """Shared by all layers of a workload."""

    cell: Cell
    layout: Layout
    kernel: Kernel
    model: Resolved
    device: torch.device
    dtype: torch.dtype
    places: tuple[Place, ...] = ()
    """The layers to build, in the order in which the decoder runs them."""
    positions: Tensor | None = None
    """Positions other than sequence indices (M-RoPE), int64 [S] or [3, S]."""
    shared: bool = False
    """Whether layers of one kind share their weights (an emulated rank)."""
    loaded: Checkpoint | None = None
    images: tuple[int, ...] = ()
    """Visual tokens of each image that enters the decoder; a segment is one where empty."""
    pictures: Pictures | None = None
    """Files that are shown instead of random pixels."""
    flags: list[str] = field(default_factory=list)
    """What a reader of the workload's numbers should know, as a record's flags."""
    forms: dict[str, str] = field(default_factory=dict)
    """Which of several forms of a computation runs, by what it computes: a record's details."""
    offload: Offload | None = None
    """Where checkpointed activations wait, if not on the device."""
    _rotary: nn.Module | None = None
    _tables: dict[tuple[str, str], tuple[Tensor, Tensor]] = field(default_factory=dict)
    _masks: dict[tuple[int, int | None, Band | None], Any] = field(default_factory=dict)
    _required: set[tuple[bool, bool]] = field(default_factory=set)
    _indices: dict[bool, Tensor] = field(default_factory=dict)
    _kept: list[Tensor] = field(default_factory=list)
    caches: list[PrefillCache] = field(default_factory=list)
    """What each layer of a prefill keeps, where the cell's cache is kept."""
    _constants: dict[Hashable, Tensor] = field(default_factory=dict)

    def rope(self, index: int, stream: str) -> tuple[Tensor, Tensor]:
        """cos and sin [1, n, K] at that layer for sequence, visual, text, image or the next token.

        ``image`` has every visual token at the place of its image's last one.
        """
        layer_type = self.model.layer_type(index)
        if (layer_type, stream) not in self._tables:
            places = self._positions(stream)
            self._tables[layer_type, stream] = self._rotation(
                layer_type, places, self._last_position
            )
        return self._tables[layer_type, stream]

    def positions_given(self, index: int, stream: str) -> Any:
        """The same as the family's own layer takes them."""
        positions = self.model.family.given(self.rope(index, stream))
        return (
            self.constant((self.model.layer_type(index), stream), lambda: positions)
            if isinstance(positions, Tensor)
            else positions
        )

    def cache_rope(self, index: int, tokens: int) -> tuple[Tensor, Tensor]:
        """cos and sin [1, n, K] at that layer of the first places: those inside a cache."""
        layer_type, stream = self.model.layer_type(index), f"cache of {tokens}"
        if (layer_type, stream) not in self._tables:
            rotations = self._rotation(layer_type, torch.arange(tokens), tokens - 1)
            self._tables[layer_type, stream] = rotations
        return self._tables[layer_type, stream]

    def query_places(self, stream: str) -> Tensor | None:
        """Positions [1, n] of a stream's rows, where layers are given them to scale queries."""
        if not self.model.family.scaled_queries:
            return None
        return self.constant(("places", stream), lambda: self._positions(stream)[None])

    def query_factor(self, index: int, stream: str, cached: int = 0) -> Tensor | None:
        """What a stream's queries are multiplied with in the layer of that index, [n, 1]; None
        where they are not scaled.

        The stream ``cache`` is one token after so many inside a cache, where positions are places.
        """
        family = self.model.family
        if not family.scales_queries(self.model.config, index):
            return None

        def make() -> Tensor:
            places = torch.tensor([cached]) if stream == "cache" else self._positions(stream)
            return family.query_factor(self.model.config, places)[:, None].to(self.dtype)

        return self.constant(("query factor", stream, cached), make)

    def _rotation(self, layer_type: str, places: Tensor, last: int) -> tuple[Tensor, Tensor]:
        """cos and sin of these positions, in a sequence whose last one is ``last``."""
        if self._rotary is None:
            self._rotary = self.model.family.rotary(self.model.config).to(self.device)
            if tracing(self.device):
                hold_rope(self._rotary)
        rotary, places = self._rotary, places.to(self.device)
        like = torch.empty(0, dtype=self.dtype, device=self.device)

        def make(places: Tensor) -> tuple[Tensor, Tensor]:
            return self.model.family.cos_sin(rotary, like, places, layer_type)

        if tracing(self.device):
            return make(places)
        return tables(make, self.model.config, places, last)

    def in_tiles(self, parts: LayerParts) -> LayerParts:
        """The parts with their MLP in tiles, where the cell asks for tiles."""
        return replace(parts, mlp=Tiled(parts.mlp, TILE)) if self.cell.tiled else parts

    def mask(self, tokens: int, window: int | None, band: Band | None = None) -> Any:
        """The mask that transformers' layer needs with this kernel over so many tokens, or None.

        Of a rank that shares a sequence, it is of the rank's own tokens.
        """
        tokens = self.layout.length if self.cell.sharing > 1 else tokens
        window = None if window is None or window >= tokens else window
        key = tokens, window, band
        if key not in self._masks:
            like = torch.empty(0, dtype=self.dtype, device=self.device)
            self._masks[key] = self.kernel.mask(tokens, window, like, band)
        return self._masks[key]

    def require(self, parts: LayerParts, decomposed: bool) -> None:
        """Raise Unsupported, with the reason, where the device refuses the kernel."""
        kind = (parts.window is None, decomposed)
        if kind in self._required or tracing(self.device):
            return
        like = torch.empty(0, dtype=self.dtype, device=self.device)
        self.kernel.require(parts, decomposed, like, self.cell.pass_ == "train")
        self._required.add(kind)

    def scores(self, parts: LayerParts, text_rows: bool, window_on_other: bool) -> Scores:
        """How the two branches of a decomposed layer form their scores."""
        window = parts.window
        if window is not None and window >= self.layout.length:
            window = None
        if window is None:
            return Scores(parts.scale, parts.softcap)
        return Scores(
            parts.scale,
            parts.softcap,
            window,
            rows=self._places(not text_rows),
            other=self._places(text_rows) if window_on_other else None,
        )

    def kept_cache(self) -> PrefillCache | None:
        """Where a layer of a prefill keeps its keys and values; None where it keeps none."""
        if not self.cell.cache:
            return None
        self.caches.append(PrefillCache())
        return self.caches[-1]

    def tensors(self) -> list[Tensor]:
        """Every mask, table and index made so far."""
        tables = [t for pair in self._tables.values() for t in pair]
        masks = [m for mask in self._masks.values() for m in mask_tensors(mask)]
        return [*tables, *self._indices.values(), *self._kept, *masks]

    def create(self, make: Callable[[], Made]) -> Made:
        """A further module of the workload, uninitialised, on its device and in its dtype."""
        return create(make, self.device, self.dtype)

    def checkpoint(self) -> Checkpoint | None:
        """The cell's checkpoint, read once; None for random weights and for predictions."""
        if self.cell.weights is None or tracing(self.device):
            return None
        if self.loaded is None:
            self.loaded = read_checkpoint(self.cell.weights, self.model)
        return self.loaded

    def flag(self, text: str) -> None:
        """Say it once to a reader of the workload's numbers."""
        if text not in self.flags:
            self.flags.append(text)

    def weigh_component(self, component: str, module: nn.Module, prefix: str, tower: str) -> None:
        """Weights of a tower or a projector: a checkpoint's, if it holds that kind, else random.

        ``prefix`` begins their names in the checkpoint, ``tower`` is the kind of the tower.
        """
        checkpoint = self.checkpoint()
        if checkpoint is not None and checkpoint.tower == tower and checkpoint.holds(prefix):
            checkpoint.fill(prefix, module)
            return
        randomise(module)
        if checkpoint is not None:
            content = f"a {checkpoint.tower}" if checkpoint.tower else "no tower"
            self.flags.append(
                f"weights: random in the {component}: {checkpoint.source!r} holds {content}, "
                f"expected {prefix}* of a {tower}"
            )

    def keep(self, tensor: Tensor) -> Tensor:
        """Count a system's own constant among the inputs; returns it."""
        self._kept.append(tensor)
        return tensor

    def constant(self, key: Hashable, make: Callable[[], Tensor]) -> Tensor:
        """A system's own constant that every layer shares: made for the first that asks."""
        if key not in self._constants:
            self._constants[key] = self.keep(make().to(self.device))
        return self._constants[key]

    def random(self, shape: tuple[int, ...]) -> Tensor:
        """Standard normal values, repeating after BLOCK of them."""
        count = math.prod(shape)
        block = torch.randn(min(count, BLOCK), device=self.device).to(self.dtype)
        if count > BLOCK:
            block = block.repeat(-(-count // BLOCK))[:count].clone()
        return block.view(shape)

    def cache(self, parts: LayerParts, tokens: int, name: str) -> Tensor:
        """``keys`` or ``values`` of ``tokens`` cached tokens, random: [B, G, n, K]."""
        heads, size = parts.entry_shapes[name]
        return self.random((self.cell.batch, heads, tokens, size))

    @property
    def _last_position(self) -> int:
        """The largest position of the whole sequence, in a decode pass the next token's."""
        end = self.cell.num_visual + self.cell.num_text - 1
        if self.positions is not None and not tracing(self.device):  # Shapes have no values.
            end = int(self.positions.max())
        return end + (self.cell.pass_ == "decode")

    def _positions(self, stream: str) -> Tensor:
        if stream == "next":
            if self.positions is None or tracing(self.device):  # There only its shape matters.
                return torch.tensor([self.layout.length])
            return self.positions.max()[None] + 1
        if stream == "image":
            places = self._image_places()
            if self.positions is None or self.positions.ndim == 1:
                return places if self.positions is None else self.positions[places]
            return self.positions[:, places].amax(0).expand(3, -1)
        places = (
            self.layout.sequence
            if stream == "sequence"
            else self.layout.positions(visual=stream == "visual")
        )
        return places if self.positions is None else self.positions[..., places]

    def image_places(self) -> Tensor:
        """Sequence index of the last token of every visual token's image, int64 [V]."""
        return self.constant("image places", self._image_places)

    def _image_places(self) -> Tensor:
        runs, stops = [torch.zeros(0, dtype=torch.int64)], sorted(set(accumulate(self.images)))
        for s in self.layout.visual_segments:
            # Text may cut an image in two.
            inside = [at - s.offset for at in stops if s.offset < at < s.offset + s.length]
            for begin, end in pairwise((0, *inside, s.length)):
                runs.append(torch.full((end - begin,), s.start + end - 1))
        return torch.cat(runs)

    def _places(self, visual: bool) -> Tensor:
        if visual not in self._indices:
            self._indices[visual] = self.layout.positions(visual).to(self.device)
        return self._indices[visual]


def mask_tensors(mask: Any) -> list[Tensor]:
    """The tensors of a mask: itself, or a block mask's tables."""
    if mask is None or isinstance(mask, Tensor):
        return [] if mask is None else [mask]
    return [x for x in mask.as_tuple() if isinstance(x, Tensor)]
