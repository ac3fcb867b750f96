"""D-Attn with both branches added, SA + XA: what Vidi (arXiv 2504.15681) does for long video."""

from workbench.lvlm.attention import SYSTEMS
from workbench.lvlm.attention.decomposed import Decomposed
from workbench.lvlm.attention.gated import TwoBranchLayer


class DAttnSum(Decomposed):
    name = "d_attn_sum"
    layer_class = TwoBranchLayer


SYSTEMS.add("d_attn_sum", DAttnSum())
