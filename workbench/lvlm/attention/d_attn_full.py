"""D-Attn's identity check: full causal V2V, RoPE everywhere, α-weighting. Must equal S-Attn.

Both streams attend to themselves and to what stands before them in the other, each with one
softmax over the union: S-Attn's own numbers by D-Attn's path, so a difference would be a fault of
the merge (arXiv 2502.01906). O(V²), as S-Attn. It gives up nothing and saves nothing.
"""

from typing import TYPE_CHECKING

from torch import Tensor

from workbench.lvlm.attention import SYSTEMS, System
from workbench.lvlm.attention.costs import Pairs, token_flops
from workbench.lvlm.attention.decomposed import DecomposedLayer
from workbench.lvlm.attention.pairs import stream_pairs, visual_prefixes
from workbench.lvlm.attention.row_inputs import RowInputs
from workbench.lvlm.context import Context
from workbench.lvlm.kernels import Branch
from workbench.lvlm.layout import causal_pairs
from workbench.lvlm.parts.marks import region
from workbench.lvlm.place import Place
from workbench.vocabulary.cell import Cell

if TYPE_CHECKING:
    from workbench.lvlm.parts import LayerParts

OWN = {"visual": "V2V", "text": "T2T"}
ACROSS = {"visual": "V2T", "text": "T2V"}


class FullLayer(DecomposedLayer):
    """Both streams attend to themselves (causal) and to what stands before them in the other."""

    rotate_visual = True

    def __init__(
        self, system: System, parts: "LayerParts", context: Context, place: Place
    ) -> None:
        super().__init__(system, parts, context, place)
        if self.decode:
            return
        self.visual_prefixes = visual_prefixes(place.layout)
        self.visual_factor = context.query_factor(place.index, "visual")
        self.visual_scores = context.scores(parts, False, window_on_other=True)

    def streams(self, visual: Tensor, text: Tensor, more: RowInputs) -> tuple[Tensor, Tensor]:
        assert self.visual_tables is not None, "both streams are rotated"
        streams: dict[str, Branch] = {}
        beside: dict[str, tuple[Tensor | None, ...]] = {}
        for name, x, (cos, sin), factor in (
            ("visual", visual, self.visual_tables, self.visual_factor),
            ("text", text, self.text_tables, self.query_factor),
        ):
            if x.shape[1]:
                normed, own = self.parts.input_norm(x), OWN[name]
                q, gate = self.parts.query_and_gate(normed, factor)
                beside[name] = gate, self.parts.shared(normed), more.own.get(name)
                k, v = more.taken.get(name) or self.parts.key_value(normed)
                with region(own):
                    q = self.parts.turn_query(q, cos, sin)
                    k = k if name in more.taken else self.parts.turn_key(k, cos, sin)
                more.give(name, k, v)
                streams[name] = Branch(q, k, v, own)
        if "visual" in streams:
            visual = self._rows("visual", "text", visual, streams, *beside["visual"])
        if "text" in streams:
            text = self._rows("text", "visual", text, streams, *beside["text"])
        return visual, text

    def _rows(
        self,
        own: str,
        other: str,
        x: Tensor,
        streams: dict[str, Branch],
        gate: Tensor | None,
        normed: Tensor | None,
        embedded: Tensor | None,
    ) -> Tensor:
        of_text = own == "text"
        parts = self.parts if of_text else self.visual_parts
        prefixes = self.prefixes if of_text else self.visual_prefixes
        scores = self.scores if of_text else self.visual_scores
        mine = streams[own]
        if other in streams and prefixes:
            theirs = streams[other]
            across = Branch(mine.q, theirs.k, theirs.v, ACROSS[own])
            attended = self.kernel.merged(mine, across, prefixes, scores)
        else:
            with region(mine.region):
                attended = self.kernel.own(mine, scores)
        return parts.finish(x, parts.output(attended, gate), normed, embedded)


class DAttnFull(System):
    name = "d_attn_full"
    options = ()
    lacks = ""
    mixes = True
    modal = True
    norms_turned = True

    def layer(self, parts: "LayerParts", context: Context, place: Place) -> FullLayer:
        return FullLayer(self, parts, context, place)

    def pairs(self, place: Place, window: int | None) -> Pairs:
        layout = place.layout
        v, t = layout.num_visual, layout.num_text
        across = sum(s.length * s.visual_before for s in layout.text_segments)
        across += sum(s.length * s.text_before for s in layout.visual_segments)
        return Pairs(v * v + t * t + across, causal_pairs(layout.length, window))

    def pairs_by_branch(self, place: Place, window: int | None) -> dict[str, Pairs]:
        layout = place.layout
        visual, text = layout.visual_segments, layout.text_segments
        v, t = layout.num_visual, layout.num_text
        dense = {
            "V2V": v * v,
            "T2T": t * t,
            "V2T": sum(s.length * s.text_before for s in visual),
            "T2V": sum(s.length * s.visual_before for s in text),
        }
        streams = {"V": visual, "T": text}
        return {
            name: Pairs(count, stream_pairs(streams[name[0]], streams[name[2]], window))
            for name, count in dense.items()
        }

    def linear_flops(self, parts: "LayerParts", place: Place, cell: Cell) -> int:
        layout, visual = place.layout, token_flops(parts.visual_rows())
        return cell.batch * (layout.num_visual * visual + layout.num_text * token_flops(parts))


SYSTEMS.add("d_attn_full", DAttnFull())
