"""D-Attn with RoPE kept in T2V: the ablation of Table 2, row 2."""

from workbench.lvlm.attention import SYSTEMS, Pairs
from workbench.lvlm.attention.decomposed import Decomposed, DecomposedLayer, rotated_pairs
from workbench.lvlm.place import Place


class BiasedLayer(DecomposedLayer):
    rotate_visual = True


class DAttnBiased(Decomposed):
    name = "d_attn_biased"
    layer_class = BiasedLayer

    def pairs(self, place: Place, window: int | None) -> Pairs:
        return rotated_pairs(place.layout, window)


SYSTEMS.add("d_attn_biased", DAttnBiased())
