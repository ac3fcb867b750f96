"""S-Attn of a family whose layers have experts for visual rows and others for rows of text.

Systems whose streams are apart need nothing of it: each takes the parts of its kind of rows.

The layers are transformers', but that rows of the two are gathered by their places in the layout
(``parts/modal.py``). What a row costs outside of the attention depends on which it is;
a decode step is one row of text.
"""

from typing import TYPE_CHECKING

import torch
from torch import nn

from workbench.lvlm.attention.s_attn import SAttn
from workbench.lvlm.context import Context
from workbench.lvlm.parts.modal import ModalExperts, ModalParts
from workbench.lvlm.place import Place
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from workbench.lvlm.parts import LayerParts


class ModalLayers(SAttn):
    """Costs of S-Attn on such a family."""

    modal = True

    def check(self, cell: Cell) -> None:
        super().check(cell)
        for field in ("ulysses", "ring"):
            if getattr(cell, field) > 1:
                raise RequestError(
                    f"{field} {getattr(cell, field)}: visual rows of {cell.model} meet other "
                    "experts than rows of text, by their place in the whole sequence, of which a "
                    "rank that shares it has a part; use 1"
                )

    def layer(self, parts: "LayerParts", context: Context, place: Place) -> nn.Module:
        layer = super().layer(parts, context, place)
        layout, decode = place.layout, context.cell.pass_ == "decode"
        if isinstance(parts.mlp, ModalExperts) and layout.num_visual and not decode:
            streams = layout.positions(True), layout.positions(False)
            visual, text = (
                context.constant(("rows", seen), streams[i].clone)
                for i, seen in enumerate(("visual", "text"))
            )
            places = torch.cat(streams)
            parts.mlp.seat(visual, text, context.constant("back", lambda: places.argsort()))
        return layer

    def linear_flops(self, parts: "LayerParts", place: Place, cell: Cell) -> int:
        every = super().linear_flops(parts, place, cell)
        if not isinstance(parts, ModalParts):
            return every
        more = parts.visual_rows().mlp_elements - parts.mlp_elements
        return every + 2 * cell.batch * place.layout.num_visual * more
