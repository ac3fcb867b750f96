"""D-Attn with RoPE kept in T2V: the ablation of Table 2, row 2 (arXiv 2502.01906).

As D-Attn, but text reads visual tokens with rotated queries and keys, at their indices in the
sequence: near images weigh more than far ones, which the paper calls biased, and a family's
sliding window hides what is beyond it. O(V), at D-Attn's cost. It gives up V2V and needs training.
"""

from workbench.lvlm.attention import SYSTEMS
from workbench.lvlm.attention.costs import Pairs
from workbench.lvlm.attention.decomposed import Decomposed, DecomposedLayer
from workbench.lvlm.attention.pairs import rotated_pairs
from workbench.lvlm.place import Place


class BiasedLayer(DecomposedLayer):
    rotate_visual = True


class DAttnBiased(Decomposed):
    name = "d_attn_biased"
    layer_class = BiasedLayer

    def pairs(self, place: Place, window: int | None) -> Pairs:
        return rotated_pairs(place.layout, window)


SYSTEMS.add("d_attn_biased", DAttnBiased())
