"""D-Attn with both branches added, SA + XA: what Vidi (arXiv 2504.15681) does for long video.

SA is the text's causal self-attention, XA its attention to the visual tokens before it, each with
a softmax of its own; rows that see no visual token take SA alone. No parameters. O(V), at D-Attn's
cost. It gives up V2V and needs training.
"""

from workbench.lvlm.attention import SYSTEMS
from workbench.lvlm.attention.decomposed import Decomposed
from workbench.lvlm.attention.gated import TwoBranchLayer


class DAttnSum(Decomposed):
    name = "d_attn_sum"
    layer_class = TwoBranchLayer


SYSTEMS.add("d_attn_sum", DAttnSum())
