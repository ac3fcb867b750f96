"""Scope ``decoder``: embedding, every layer, final norm, LM head and, in training, the loss."""

from collections.abc import Hashable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workbench.lvlm.attention import System
from workbench.lvlm.context import TILE, Context
from workbench.lvlm.kinds import layer_kinds
from workbench.lvlm.layers import Checkpointed, make_layer, parts_of, random_tensor
from workbench.lvlm.layout import Layout, take_rows
from workbench.lvlm.loss import (
    IGNORED,
    loss_flags,
    loss_of_all_rows,
    loss_of_text_rows,
    make_labels,
    num_targets,
    shifted,
)
from workbench.lvlm.models.around import make_around
from workbench.lvlm.offload import Offload
from workbench.lvlm.parts.chunked import token_chunks
from workbench.lvlm.parts.marks import region
from workbench.lvlm.reduce import ReducedTokens, TokenGrid, reducer_of, runs
from workbench.lvlm.scopes import SCOPES
from workbench.lvlm.towers import tower_of
from workbench.lvlm.weights.checkpoints import Checkpoint
from workbench.lvlm.weights.random import randomise
from workbench.lvlm.workload import Workload
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from workbench.lvlm.attention import Visual
    from workbench.lvlm.parts import LayerParts
    from workbench.lvlm.place import Place


class Decoder(nn.Module):
    """A whole language model around one attention system.

    Visual embeddings [B, V, W] enter beside text ids [B, T]; W is the hidden size, for HiMix the
    encoder's width.
    """

    def __init__(self, cell: Cell, system: System, context: Context) -> None:
        super().__init__()
        config, model = context.model.config, context.model
        self.cell, self.system, self.layout = cell, system, context.layout
        self.places = context.places
        self.num_targets = num_targets(cell) if cell.optimizes else 0
        vocab, width = config.vocab_size, config.hidden_size
        self.embed_scale = model.family.embed_scale(config)
        self.visual_scale = model.family.visual_scale(config) if system.adapter else 1.0
        self.softcap = getattr(config, "final_logit_softcapping", None)
        self.logit_scale = model.logit_scale
        rows = model.family.embedded(config)
        self.embed_tokens = context.create(lambda: nn.Embedding(rows, width))
        self.parts: list[LayerParts] = []
        blocks: list[nn.Module] = []
        layers_by_kind: dict[Hashable, tuple[LayerParts, nn.Module]] = {}
        # What is added between layers is no part of them.
        plain = [replace(place, stacked=False) for place in context.places]
        kinds = layer_kinds(model, plain) if context.shared else ()
        for number, place in enumerate(context.places):
            kind = kinds[number] if context.shared else number
            if kind not in layers_by_kind:
                layer = make_layer(model, place, context)
                parts = parts_of(model, layer, place, system, context)
                layers_by_kind[kind] = parts, system.layer(parts, context, place)
            self.parts.append(layers_by_kind[kind][0])
            blocks.append(layers_by_kind[kind][1])
        self.layers = nn.ModuleList(grouped(blocks, cell, context.offload))
        self.around = make_around(context)
        self.norm = context.create(lambda: model.family.norm(config))
        self.norm_name = model.family.norm_name
        self.lm_head = context.create(lambda: nn.Linear(width, vocab, bias=False))
        if getattr(config, "tie_word_embeddings", False):
            self.lm_head.weight = self.embed_tokens.weight
        checkpoint = context.checkpoint()
        if checkpoint is None:
            for module in (self.embed_tokens, self.around, self.norm, self.lm_head):
                if module is not None:
                    randomise(module)
        else:
            self._load(checkpoint)
        # At scope lvlm the features are pooled before the adapter.
        self.pooling: ReducedTokens | None = None
        own, originals = system.pooling(), context.places[0].originals
        if own is not None and originals.num_visual and cell.scope != "lvlm":
            grids = tuple(TokenGrid(s.length) for s in originals.visual_segments)
            self.pooling = ReducedTokens(own.build(context, width), grids)
        self.text_rows = context.keep(self.layout.rows(visual=False).to(context.device))
        if any(place.stacked for place in context.places):
            self.visual_rows = context.keep(self.layout.positions(True).to(context.device))

    def forward(
        self,
        visual: "Visual | None",
        ids: Tensor,
        targets: Tensor | None = None,
        stacked: Mapping[int, Tensor] | None = None,
    ) -> Tensor:
        """Logits [B, rows, vocab], or the mean loss of text tokens, given ``targets``.

        These are [B, T], or [B, S] labels of every row where the loss runs over all of them.

        ``stacked`` are features [B, V, D], added to the visual rows after the layers that they
        are under.
        A decode step has no ``visual``: its ids [B, 1] meet the layers' caches.
        """
        with region("embedding"):
            text = self.embed_tokens(ids)
            if self.embed_scale != 1.0:
                text = text * self.embed_scale
        if self.pooling is not None and isinstance(visual, Tensor):
            with region("reducer"):
                visual = visual, self.pooling(visual)
        if visual is not None and self.visual_scale != 1.0:
            with region("embedding"):
                visual = self._scaled(visual)
        state = (text,) if visual is None else self.system.state(visual, text, self.layout)
        if self.around is not None:
            with region("embedding"):
                layout = None if visual is None else self.layout
                state = self.system.enter(self.around, state, ids, layout)
        for number, layer in enumerate(self.layers):
            state = layer(*state)
            if stacked and self.places[number].stacked:
                with region("deepstack"):
                    features = stacked[self.places[number].index]
                    state = self.system.add_visual(state, features, self.visual_rows)
        text_rows = self.text_rows if self.cell.logits == "text" else None
        if visual is None:
            return self._logits(self._normed(state[-1]))
        hidden = self._normed(self.system.rows(state, self.layout, text_rows))
        if targets is None:
            return self._logits(hidden)
        rows = self.system.left(state, text_rows)
        # A rank that shares a sequence may have none of its text.
        if self.cell.tiled and hidden.shape[1]:
            return self._tiled_loss(hidden, targets, rows)
        logits = self._logits(hidden)
        if self.cell.loss_rows == "all":
            targets = targets if rows is None else targets.gather(1, rows)
            with region("loss"):
                return loss_of_all_rows(self.cell, logits, targets, self.num_targets)
        if rows is not None:
            text = self.text_rows.expand(rows.shape[0], -1)
            logits = take_rows(logits, torch.searchsorted(rows, text.contiguous()))
        elif logits.shape[1] != targets.shape[1]:
            logits = logits[:, self.text_rows]
        with region("loss"):
            return loss_of_text_rows(self.cell, logits, targets, self.num_targets)

    def around_flops(self, entering: int, leaving: int) -> int:
        """Matmul FLOPs outside the layers of a sample of which so many rows enter and leave."""
        vocab, width = self.lm_head.weight.shape
        head = 2 * width * vocab * leaving
        if self.around is None:
            return head
        return head + entering * self.around.enter_flops() + leaving * self.around.leave_flops()

    def _scaled(self, visual: "Visual") -> "Visual":
        if isinstance(visual, Tensor):
            return visual * self.visual_scale
        originals, pooled = visual
        return originals * self.visual_scale, pooled * self.visual_scale

    def _normed(self, rows: Tensor) -> Tensor:
        """What leaves the last layer as the LM head takes it."""
        if self.around is not None:
            with region("LM head"):
                rows = self.around.leave(rows)
        normed: Tensor = self.norm(rows)
        return normed

    def costs(self) -> "list[tuple[LayerParts, Place, int]]":
        """Parts and place of every layer, each standing for itself."""
        return [(parts, place, 1) for parts, place in zip(self.parts, self.places, strict=True)]

    def _logits(self, hidden: Tensor) -> Tensor:
        with region("LM head"):
            logits = self.lm_head(hidden)
            if self.logit_scale is not None:
                logits = logits * self.logit_scale
            if self.softcap is not None:
                logits = torch.tanh(logits / self.softcap) * self.softcap
            return logits

    def _tiled_loss(self, hidden: Tensor, targets: Tensor, left: Tensor | None) -> Tensor:
        """The LM head and its loss in tiles of tokens; rows that are not text have target -100."""
        count: int | Tensor = self.num_targets
        if self.cell.loss_rows == "all":
            targets = shifted(self.cell, targets if left is None else targets.gather(1, left))
            if left is not None:  # A text token before which nothing is left has no row.
                count = (targets != IGNORED).sum()
        elif left is not None or hidden.shape[1] != targets.shape[1]:
            whole = targets.new_full((targets.shape[0], self.layout.length), IGNORED)
            whole[:, self.text_rows] = targets
            targets = whole if left is None else whole.gather(1, left)

        def losses(rows: Tensor, wanted: Tensor) -> tuple[Tensor]:
            with region("loss"):
                flat = self._logits(rows).float().flatten(0, 1)
                each = F.cross_entropy(
                    flat, wanted.flatten(), ignore_index=IGNORED, reduction="none"
                )
                return (each.view(wanted.shape),)

        (each,) = token_chunks(losses, TILE, [hidden, targets], [self.lm_head.weight])
        return each.sum() / count

    def _load(self, checkpoint: Checkpoint) -> None:
        checkpoint.fill("embed_tokens.", self.embed_tokens)
        checkpoint.fill(f"{self.norm_name}.", self.norm)
        if self.lm_head.weight is not self.embed_tokens.weight:
            checkpoint.fill("lm_head.", self.lm_head)
        if self.around is not None:
            checkpoint.fill("", self.around)


def grouped(blocks: list[nn.Module], cell: Cell, offload: Offload | None) -> list[nn.Module]:
    """The layers, each or every ``checkpoint_every`` of them under one checkpoint."""
    if not cell.checkpoint:
        return blocks
    size = cell.checkpoint_every or 1
    return [
        Checkpointed(blocks[i] if size == 1 else Run(blocks[i : i + size]), offload)
        for i in range(0, len(blocks), size)
    ]


class Run(nn.Module):
    """Consecutive layers as one module."""

    def __init__(self, blocks: list[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, *state: Tensor) -> tuple[Tensor, ...]:
        for block in self.blocks:
            state = block(*state)
        return state


class ReducedDecoder(nn.Module):
    """A decoder behind a reducer: |V| visual embeddings in, |V'| through the layers."""

    def __init__(self, reducer: ReducedTokens, decoder: Decoder) -> None:
        super().__init__()
        self.reducer, self.decoder = reducer, decoder
        self.layers = decoder.layers

    def forward(
        self, visual: Tensor, ids: Tensor, targets: Tensor | None = None, *beside: Tensor
    ) -> Tensor:
        """As the decoder's, of visual embeddings [B, V, W]; ``beside`` is what a reducer needs."""
        with region("reducer"):
            visual = self.reducer(visual, *beside)
        return self.decoder(visual, ids, targets)


def _decoder_scope(cell: Cell, system: System, context: Context) -> Workload:
    decoder, reducer = Decoder(cell, system, context), reducer_of(cell)
    workload = decoder_workload(cell, system, context, decoder)
    if reducer is None or not cell.num_visual:
        return workload
    width = system.visual_width(decoder.parts[0])
    grids = runs(Layout.of(cell))
    reduced = ReducedDecoder(ReducedTokens(reducer.build(context, width), grids), decoder)
    workload.module = reduced
    workload.modules = {"reducer": reduced.reducer, "decoder": decoder}
    if cell.pass_ == "decode":
        return workload
    train = cell.pass_ == "train"
    visual = random_tensor((cell.batch, cell.num_visual, width), context, grad=train)
    keys = tower_of(context.model, cell.tower).head_size if reducer.needs else 0
    shapes = {"keys": (keys,), "importance": ()}
    beside = [
        random_tensor((cell.batch, cell.num_visual, *shapes[need]), context)
        for need in reducer.needs
    ]
    _, ids, *targets = workload.inputs
    workload.inputs = [visual, ids, *targets, *beside]
    workload.forward = lambda: (reduced(visual, ids, targets[0] if train else None, *beside),)
    flops = sum(reducer.flops(grid, width, keys) for grid in grids)
    workload.outside_flops = {"reducer": cell.batch * flops}
    backward = sum(reducer.backward_flops(grid, width) for grid in grids)
    if not reducer.parameters(width):
        workload.backward_flops = {"reducer": cell.batch * backward}
    return workload


def decoder_workload(cell: Cell, system: System, context: Context, decoder: Decoder) -> Workload:
    """The workload of a decoder over random visual embeddings; raises RequestError."""
    if cell.skip_last and cell.logits == "all":
        raise RequestError("skip_last: needs logits 'text', or visual logits would be missing")
    train = cell.pass_ == "train"
    if cell.pass_ == "decode":
        return _decode_step(cell, system, context, decoder)
    layout = context.layout
    # Places are of the whole sequence; of one that ranks share, this rank has its own rows.
    entering = context.places[0].beside or layout
    shape = (cell.batch, entering.num_visual, system.visual_width(decoder.parts[0]))
    visual = random_tensor(shape, context, grad=train)
    vocab = context.model.config.vocab_size
    text = (cell.batch, layout.num_text)
    ids = torch.randint(vocab, text, device=context.device)
    targets = (
        make_labels(context, vocab)
        if cell.loss_rows == "all"
        else torch.randint(vocab, text, device=context.device)
    )
    context.flags += loss_flags(cell)

    def forward() -> tuple[Tensor, ...]:
        return (decoder(visual, ids, targets if train else None),)

    return Workload(
        cell=cell,
        system=system,
        context=context,
        module=decoder,
        inputs=[visual, ids, *([targets] if train else [])],
        forward=forward,
        layers=decoder.costs(),
        head_flops=cell.batch
        * decoder.around_flops(
            layout.num_text if system.text_only else layout.length,
            layout.num_text
            if system.text_only or cell.logits == "text"
            else system.num_rows(layout, context.places[-1]),
        ),
    )


def _decode_step(cell: Cell, system: System, context: Context, decoder: Decoder) -> Workload:
    config = context.model.config
    ids = torch.randint(config.vocab_size, (cell.batch, 1), device=context.device)
    return Workload(
        cell=cell,
        system=system,
        context=context,
        module=decoder,
        inputs=[ids],
        forward=lambda: (decoder(None, ids),),
        layers=decoder.costs(),
        head_flops=cell.batch * decoder.around_flops(1, 1),
    )


SCOPES.add("decoder", _decoder_scope)
