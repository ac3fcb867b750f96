"""Experts of which visual rows meet some and text others, beside an MLP that all rows share.

transformers finds the visual rows by a mask, whose count only data tells. Here the rows of the two
are known from the layout, and gathered by their places; where a system has the two in streams of
their own, each stream meets its experts. Routers, experts and the shared MLP are transformers' own
modules, and a test holds the layer against its forward.
"""

from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from workbench.lvlm.parts import LayerParts, OwnTiles
from workbench.lvlm.parts.experts import Experts
from workbench.vocabulary.errors import Unsupported


class ModalExperts(OwnTiles):
    """The modules of transformers' block under its own names.

    Rows are of one kind, which the call names, until they are seated as a sequence of both.
    """

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.text_moe, self.vision_moe = block.text_moe, block.vision_moe
        self.shared_experts = block.shared_experts
        self.rows: tuple[Tensor, Tensor, Tensor] | None = None

    def seat(self, visual: Tensor, text: Tensor, back: Tensor) -> None:
        """Take the places of rows in a sequence, and of the places behind each other those."""
        self.rows = visual, text, back

    def forward(self, hidden: Tensor, all_visual: bool = False) -> Tensor:
        """[B, S, D] -> [B, S, D]."""
        shared = None if self.shared_experts is None else self.shared_experts(hidden)
        if self.rows is None:
            out = self._met(self.vision_moe if all_visual else self.text_moe, hidden)
        else:
            visual, text, back = self.rows
            streams = [self._met(self.vision_moe, hidden.index_select(1, visual))]
            if len(text):
                streams.append(self._met(self.text_moe, hidden.index_select(1, text)))
            out = torch.cat(streams, 1).index_select(1, back)
        return out if shared is None else out + shared

    @staticmethod
    def _met(block: Any, rows: Tensor) -> Tensor:
        met: Tensor = block(rows)[0].view(rows.shape)
        return met

    def tile(self, tile: int) -> None:
        raise Unsupported("tiled: experts of visual rows and of text are one call each")


@dataclass(frozen=True)
class ModalParts(LayerParts):
    """Parts of such a layer, for rows of one kind: what one token meets is what these do."""

    all_visual: bool = False
    """Whether the rows are visual ones; else they are of text."""

    def visual_rows(self) -> "ModalParts":
        return replace(self, all_visual=True)

    def run_mlp(self, mlp: nn.Module, normed: Tensor) -> Tensor:
        rows: Tensor = mlp(normed) if self.experts is None else mlp(normed, self.all_visual)
        return rows

    @property
    def mlp_elements(self) -> int:
        if self.experts is None:
            return super().mlp_elements
        mlp = cast(ModalExperts, self.mlp)
        block: Any = mlp.vision_moe if self.all_visual else mlp.text_moe
        shared = mlp.shared_experts
        every = 0 if shared is None else sum(w.numel() for w in shared.parameters() if w.ndim > 1)
        one = sum(w.numel() for w in block.experts.parameters()) // self.experts.total
        return int(every + block.gate.weight.numel() + self.experts.active * one)

    @property
    def idle_parameters(self) -> int:
        if self.experts is None:
            return 0
        mlp, (active, total, _) = cast(ModalExperts, self.mlp), self.experts
        text: Any = mlp.text_moe
        stacked = sum(w.numel() for w in text.experts.parameters())
        visual = sum(w.numel() for w in mlp.vision_moe.parameters())
        return int(stacked // total * (total - active) + visual)


def modal_parts(parts: LayerParts) -> ModalParts:
    """The same parts, with the experts of a layer whose MLP is ``ModalExperts``."""
    experts = None
    if isinstance(parts.mlp, ModalExperts):
        gate: Any = parts.mlp.text_moe.gate
        experts = Experts(gate.top_k, gate.num_experts)
    return ModalParts(**{**vars(parts), "experts": experts})
