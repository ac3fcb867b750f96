"""Scope ``lvlm``: vision tower, adapter and decoder, from pixels and text ids to logits or loss.

Tower and adapter are what the model's config says; a text model takes the paper's: SigLIP
so400m/14 at 384 pixels and an MLP adapter. Learnable visual positions are one vector a visual
token, which the paper leaves open.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from workbench.inputs.model_files import is_file_model
from workbench.lvlm.attention import System
from workbench.lvlm.configs import one_line
from workbench.lvlm.context import Context
from workbench.lvlm.kernels.modelled import tracing
from workbench.lvlm.layers import random_tensor
from workbench.lvlm.layout import Layout
from workbench.lvlm.models import resolve
from workbench.lvlm.parts.marks import region
from workbench.lvlm.pictures import look
from workbench.lvlm.pictures import pixels as read_pixels
from workbench.lvlm.reduce import ReducedTokens, Reducer, reducer_of
from workbench.lvlm.scopes import SCOPES, VISUAL_UNITS
from workbench.lvlm.scopes.decoder import Decoder, decoder_workload
from workbench.lvlm.towers import Grid, Tower, tower_of
from workbench.lvlm.towers.glance import Glance
from workbench.lvlm.workload import Workload
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.errors import RequestError, Unsupported

if TYPE_CHECKING:
    from workbench.lvlm.attention import Visual
    from workbench.lvlm.parts import LayerParts


class LVLM(nn.Module):
    """Pixels and text ids to logits or loss. HiMix has no adapter: it keeps the tower's width."""

    def __init__(
        self, cell: Cell, system: System, context: Context, tower: Tower, grids: tuple[Grid, ...]
    ) -> None:
        super().__init__()
        self.cell, self.context = cell, context
        self.decoder = Decoder(cell, system, context)
        self.layers = self.decoder.layers
        self.stacked = tower.stacked
        self.added: Tensor | None = None
        if tower.added_token is not None:
            self.added = context.keep(torch.tensor([tower.added_token], device=context.device))
        if not system.adapter and tower.without_adapter:
            raise Unsupported(f"{cell.attention} {tower.without_adapter.format(tower=tower)}")
        with refuse_misfits(context):
            self.tower, self.adapter = tower.build(context, grids, system.adapter)
        if not system.adapter:
            check_width(tower, system, self.decoder.parts[0])
        self.reducer: ReducedTokens | None = None
        reducer = reducer_of(cell) or system.pooling()
        self.reduces_last = reduces_last(tower, reducer)
        self.keeps_originals = system.pooling() is not None
        self.glance: Glance | None = None
        if reducer is not None and cell.num_visual:
            width = self.visual_width(tower, system)
            reduction = reducer.build(context, width)
            self.glance = glance = glance_of(tower, self.tower, reducer)
            looked = None if glance is None else lambda: map(tower.of_tokens, glance.take())
            self.reducer = ReducedTokens(reduction, tower.token_grids(grids), looked)
        self.positions: nn.Parameter | None = None
        if cell.visual_positions:
            shape = (context.layout.num_visual, system.visual_width(self.decoder.parts[0]))
            self.positions = nn.Parameter(0.02 * context.random(shape))

    def forward(self, pixels: Tensor | None, ids: Tensor, targets: Tensor | None = None) -> Tensor:
        """Pixels as the tower takes them, None in a decode step -> as the decoder's forward."""
        if pixels is None:
            return self.decoder(None, ids, targets)
        with refuse_misfits(self.context):
            visual, stacked = self.embed(pixels)
        return self.decoder(visual, ids, targets, stacked)

    def embed(self, pixels: Tensor) -> "tuple[Visual, dict[int, Tensor]]":
        """Visual embeddings [B, V, W] in the order of the images; by layer, what deepstack adds.

        Where the system pools and keeps the originals, these and the pooled ones.
        """
        if not self.stacked:
            return self._embed(pixels), {}
        with region("tower"):
            features = self.tower(pixels)
        with region("adapter"):
            assert self.adapter is not None, "deepstack's mergers are its"
            shape = self.cell.batch, self.decoder.layout.num_visual, -1
            visual, *stacked = (x.reshape(shape) for x in self.adapter(features))
            visual = visual if self.positions is None else visual + self.positions
            return visual, dict(zip(self.stacked, stacked, strict=True))

    def _embed(self, pixels: Tensor) -> "Visual":
        with region("tower"), nullcontext() if self.glance is None else self.glance.watching():
            visual = self.tower(pixels)
        if self.keeps_originals:
            return self._both(visual)
        if not self.reduces_last:
            visual = self._reduced(visual)
        with region("adapter"):
            if self.adapter is not None:
                visual = self.adapter(visual)
        if self.reduces_last:
            visual = self._reduced(visual)
        with region("adapter"):
            visual = visual.reshape(self.cell.batch, self.decoder.layout.num_visual, -1)
            visual = self._in_place(visual)
            return visual if self.positions is None else visual + self.positions

    def _in_place(self, visual: Tensor) -> Tensor:
        """With the embedding of the token in whose place each stands, where that stays."""
        return visual if self.added is None else visual + self.decoder.embed_tokens(self.added)

    def _both(self, visual: Tensor) -> tuple[Tensor, Tensor]:
        """The adapter over the originals and over the pooled, each [B, n, W]."""
        streams = [visual]
        if not self.reduces_last:
            streams.append(self._reduced(visual))
        if self.adapter is not None:
            with region("adapter"):
                streams = [self.adapter(x) for x in streams]
        if self.reduces_last:
            streams.append(self._reduced(streams[0]))
        originals, pooled = (
            self._in_place(x.reshape(self.cell.batch, -1, x.shape[-1])) for x in streams
        )
        return originals, pooled

    def _reduced(self, visual: Tensor) -> Tensor:
        if self.reducer is None:
            return visual
        with region("reducer"):
            return self.reducer(visual.reshape(self.cell.batch, self.cell.num_visual, -1))

    def visual_width(self, tower: Tower, system: System) -> int:
        """Width of the embeddings that the reducer reads."""
        if self.reduces_last or not system.adapter:
            return system.visual_width(self.decoder.parts[0])
        return tower.feature_width


@contextmanager
def refuse_misfits(context: Context) -> Iterator[None]:
    """Turn what a file's tower raises over shapes into RequestError, one line.

    Its config states sizes that transformers' classes build and cannot run together. On a device,
    where there are other reasons, the error stays what it is.
    """
    try:
        yield
    except (RequestError, Unsupported):
        raise
    except Exception as error:
        name = context.model.name
        if not (is_file_model(name) and tracing(context.device)):
            raise
        raise RequestError(
            f"model {name!r}: its vision tower cannot run: {one_line(error)}"
        ) from None


def reduces_last(tower: Tower, reducer: Reducer | None) -> bool:
    """Whether a reducer stands behind the adapter: by its own form, or the adapter merges."""
    return tower.merges or (reducer is not None and reducer.after_adapter)


def glance_of(tower: Tower, module: nn.Module, reducer: Reducer) -> Glance | None:
    """What a reducer needs of the built tower; raises Unsupported where it has none of it."""
    if not reducer.needs:
        return None
    view = tower.view(module)
    if view is None:
        raise Unsupported(
            f"reducer {reducer.name} reads {' and '.join(reducer.needs)} of a tower's tokens, "
            f"which the tower of {tower.front_end} does not show"
        )
    return Glance(view, reducer.needs)


def trained_before(cell: Cell, last: bool, adapter: bool) -> bool:
    """Whether anything before a reducer is trained, so that what it reads needs a gradient.

    ``last`` says whether it stands behind the adapter, ``adapter`` whether there is one.
    """
    before = {"tower", "adapter"} if last and adapter else {"tower"}
    return not before <= set(cell.frozen_parts)


def check_width(tower: Tower, system: System, parts: "LayerParts") -> None:
    """Raise Unsupported where a system that keeps the tower's features expects another width."""
    tower_width, width = tower.config.hidden_size, system.visual_width(parts)
    if tower_width != width:
        raise Unsupported(
            f"{system.name} keeps the tower's features, {width:,} wide as SigLIP so400m's; "
            f"{tower.front_end}'s are {tower_width:,} wide"
        )


def widen(tower: Tower, system: System, reducer: Reducer) -> None:
    """Have the adapter built for what a reducer lays side by side; Unsupported if it cannot be."""
    if reducer.side_by_side == 1:
        return
    if not system.adapter:
        raise Unsupported(
            f"reducer {reducer.name} widens the features, whose width {system.name} keeps: it has "
            "no adapter that would narrow them"
        )
    if tower.merges or not tower.widens:
        raise Unsupported(
            f"reducer {reducer.name} widens what enters an adapter, and that of {tower.front_end} "
            + ("itself merges tokens" if tower.merges else "has a width of its own")
        )
    tower.side_by_side = reducer.side_by_side


def _lvlm_scope(cell: Cell, system: System, context: Context) -> Workload:
    limits = None if context.pictures is None else context.pictures.limits
    tower = tower_of(context.model, cell.tower, limits)
    scene = None if context.pictures is None else look(tower, context.pictures)
    grids = tower.grids(cell.num_visual) if scene is None else scene.grids
    if sum(map(tower.tokens, grids)) != cell.num_visual:
        raise RequestError(
            f"num_visual {cell.num_visual}: the files make {sum(map(tower.tokens, grids))} tokens"
        )
    own = system.pooling()
    reducer = reducer_of(cell) or own
    if reducer is not None and cell.num_visual:
        widen(tower, system, reducer)
    context.positions = positions_of(tower, reducer, context.layout, grids)
    images = tower.token_grids(grids)
    context.images = tuple(i.tokens if reducer is None else reducer.tokens(i) for i in images)
    model, train = LVLM(cell, system, context, tower, grids), cell.pass_ == "train"
    workload = decoder_workload(cell, system, context, model.decoder)
    workload.module = model
    workload.modules = {"tower": model.tower, "decoder": model.decoder}
    if model.adapter is not None:
        workload.modules["adapter"] = model.adapter
    if model.reducer is not None:
        workload.modules["reducer"] = model.reducer
    if cell.pass_ == "decode" or cell.num_visual == 0:
        return workload
    pixels = random_tensor(tower.pixels(cell.batch, grids), context)
    files = context.pictures
    if scene is not None and files is not None and files.has_files and not tracing(context.device):
        content = read_pixels(tower, files, scene)
        pixels.view(cell.batch, *content.shape).copy_(content)
    _, ids, *targets = workload.inputs
    workload.inputs = [pixels, ids, *targets]
    workload.forward = lambda: (model(pixels, ids, *(targets if train else [])),)
    workload.outside_flops = {"tower": cell.batch * tower.tower_flops(grids)}
    # The adapter runs token by token: on those that the reducer leaves, where that stands before.
    before = reducer is not None and not reduces_last(tower, reducer)
    counts, whole = context.layout.num_visual if before else cell.num_visual, cell.num_visual
    if before and own is not None:
        counts += whole
    if system.adapter:
        flops = cell.batch * tower.adapter_flops(grids) * counts // whole
        workload.outside_flops["adapter"] = flops
    learns = False
    if reducer is not None:
        width = model.visual_width(tower, system)
        flops = sum(reducer.flops(grid, width, tower.head_size) for grid in images)
        glance = tower.glance_flops(grids, reducer.needs)
        workload.outside_flops["reducer"] = cell.batch * (flops + glance)
        learns = reducer.parameters(width) > 0 and "reducer" not in cell.frozen_parts
        if not trained_before(cell, not before, system.adapter) and not learns:
            workload.backward_flops["reducer"] = 0
        elif not reducer.parameters(width):
            backward = sum(reducer.backward_flops(grid, width) for grid in images)
            workload.backward_flops["reducer"] = cell.batch * backward
    workload.leaf_flops = cell.batch * tower.patch_flops(grids)
    if "tower" in cell.frozen_parts:
        frozen = "adapter" in cell.frozen_parts
        entry = cell.batch * tower.entry_flops(grids) * counts // whole if system.adapter else 0
        workload.leaf_flops = workload.outside_flops.get("adapter", 0) if frozen else entry
        if before and learns:
            workload.leaf_flops = 0  # What enters the adapter is learned.
    return workload


def positions_of(
    tower: Tower, reducer: Reducer | None, layout: Layout, grids: tuple[Grid, ...]
) -> Tensor | None:
    """Positions of the sequence other than indices, of the images that a reducer leaves."""
    if reducer is None:
        return tower.positions(layout, grids)
    if not tower.has_positions:
        return None
    if not reducer.keeps_grid:
        raise Unsupported(
            f"reducer {reducer.name} leaves no rows and columns, on which the positions of "
            f"{tower.front_end} (M-RoPE) lie"
        )
    return tower.positions(layout, tuple(tower.reduced(grid, reducer) for grid in grids))


SCOPES.add("lvlm", _lvlm_scope)
VISUAL_UNITS["lvlm"] = lambda cell: tower_of(resolve(cell.model), cell.tower).tokens_each
