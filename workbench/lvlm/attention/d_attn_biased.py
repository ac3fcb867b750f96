"""D-Attn with RoPE kept in T2V: the ablation of Table 2, row 2."""

from workbench.lvlm.attention import SYSTEMS, Pairs
from workbench.lvlm.attention.decomposed import (
    Decomposed,
    DecomposedLayer,
    text_pairs,
    window_pairs,
)
from workbench.lvlm.place import Place


class BiasedLayer(DecomposedLayer):
    rotate_visual = True


class DAttnBiased(Decomposed):
    name = "d_attn_biased"
    layer_class = BiasedLayer

    def pairs(self, place: Place, window: int | None) -> Pairs:
        layout, dense = place.layout, super().pairs(place, window).dense
        seen = sum(
            window_pairs(row, key, window)
            for row in layout.text_segments
            for key in layout.visual_segments
            if key.start < row.start
        )
        return Pairs(dense, text_pairs(layout, window) + seen)


SYSTEMS.add("d_attn_biased", DAttnBiased())
