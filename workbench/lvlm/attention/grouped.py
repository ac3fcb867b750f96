"""Shared by systems whose visual rows see some of the visual tokens of their own segment.

V2V is not causal and stays inside a visual segment; RoPE is kept, visual rows see no text. Text
rows are those of S-Attn: one softmax over the visual tokens before them and the text.
"""

from typing import TYPE_CHECKING

from torch import Tensor, cat

from workbench.lvlm.attention import System
from workbench.lvlm.attention.costs import Pairs, token_flops
from workbench.lvlm.attention.decomposed import Decomposed, DecomposedLayer
from workbench.lvlm.attention.pairs import text_pairs
from workbench.lvlm.attention.row_inputs import RowInputs
from workbench.lvlm.context import Context
from workbench.lvlm.kernels import Branch, Scores
from workbench.lvlm.layout import word_of
from workbench.lvlm.parts.marks import region
from workbench.lvlm.place import Place
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.errors import Unsupported

if TYPE_CHECKING:
    from workbench.lvlm.parts import LayerParts


class GroupedLayer(DecomposedLayer):
    """``segment`` says which keys the rows of a visual segment see."""

    rotate_visual = True

    def __init__(
        self, system: System, parts: "LayerParts", context: Context, place: Place
    ) -> None:
        super().__init__(system, parts, context, place)
        # Keys come to the text rotated: the visual rows needed them so.
        self.tables, self.visual_tables = self.visual_tables, None
        self.visual_factor = None if self.decode else context.query_factor(place.index, "visual")
        self.segments = place.layout.visual_segments
        self.all_pairs = Scores(parts.scale, parts.softcap, causal=False)
        self.parts = context.in_tiles(parts)

    def visual_stream(self, visual: Tensor, more: RowInputs) -> tuple[Tensor, Tensor, Tensor]:
        """The visual output, and rotated keys and values [B, G, V, K] that text attends to."""
        assert self.tables is not None, "visual rows are rotated"
        parts, taken = self.parts, more.taken.get("visual")
        if taken is not None and self.only_keys:
            return visual, taken[0], taken[1]
        x = parts.input_norm(visual)
        key, value = taken or parts.key_value(x)
        if taken is None:
            with region("V2V"):
                key = parts.rope(key, *self.tables)
            more.give("visual", key, value)
        if not self.only_keys:
            query = parts.query(x, self.visual_factor)
            with region("V2V"):
                query = parts.rope(query, *self.tables)
                runs = [slice(s.offset, s.offset + s.length) for s in self.segments]
                groups = [
                    self.segment(query[:, :, run], key[:, :, run], value[:, :, run])
                    for run in runs
                ]
                attended = groups[0] if len(groups) == 1 else cat(groups, 2)
            own = more.own.get("visual")
            visual = parts.finish(visual, parts.output(attended), x, own)
        return visual, key, value

    def segment(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of a segment's n tokens, q [B, H, n, K], k and v [B, G, n, K], to itself."""
        raise NotImplementedError

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """All rows to all keys: [b, H, r, K], [b, G, c, K] -> [b, H, r, K]."""
        return self.kernel.own(Branch(q, k, v, "V2V"), self.all_pairs)


class Grouped(Decomposed):
    """Costs of a system whose visual rows see ``visual_pairs`` keys in all."""

    options = ("skip_last", "tiled")
    keeps_cache = False
    mixes = False
    modal = False
    norms_turned = False
    ring = ""

    def refuse(self, parts: "LayerParts", place: Place, window_bites: bool) -> None:
        if window_bites:
            raise Unsupported(
                f"{self.name} chooses the keys of a visual row itself, and so would the "
                f"{word_of(parts.window)} of {parts.attention.config.model_type} "
                f"({parts.window} tokens)"
            )

    def visual_pairs(self, tokens: int, place: Place) -> int:
        """V2V pairs of a visual segment of so many tokens: all computed, none hidden."""
        raise NotImplementedError

    def routing_flops(self, parts: "LayerParts", tokens: int) -> int:
        """Matmul FLOPs of choosing the keys of a segment, one sample."""
        return 0

    def pairs_by_stream(self, place: Place, window: int | None) -> None:
        return None  # Visual rows have pairs of their own.

    def pairs(self, place: Place, window: int | None) -> Pairs:
        branches = self.pairs_by_branch(place, window).values()
        return Pairs(sum(b.dense for b in branches), sum(b.allowed for b in branches))

    def pairs_by_branch(self, place: Place, window: int | None) -> dict[str, Pairs]:
        layout, visual = place.layout, 0
        if not place.keys_only:
            visual = sum(self.visual_pairs(s.length, place) for s in layout.visual_segments)
        cross = sum(s.length * s.visual_before for s in layout.text_segments)
        return {
            "V2V": Pairs(visual, visual),
            "T2V": Pairs(cross, cross),
            "T2T": Pairs(layout.num_text**2, text_pairs(layout, None)),
        }

    def window_bites(self, place: Place, window: int | None) -> bool:
        # One that hides a pair of S-Attn is refused, whether it hides one here or not.
        return window is not None and window < place.layout.length

    def linear_flops(self, parts: "LayerParts", place: Place, cell: Cell) -> int:
        layout = place.layout
        visual = token_flops(parts, q=not place.keys_only, rest=not place.keys_only)
        flops = layout.num_visual * visual + layout.num_text * token_flops(parts)
        return cell.batch * flops + self.choice_flops(parts, place, cell)

    def choice_flops(self, parts: "LayerParts", place: Place, cell: Cell) -> int:
        if place.keys_only:
            return 0
        segments = place.layout.visual_segments
        return cell.batch * sum(self.routing_flops(parts, s.length) for s in segments)
