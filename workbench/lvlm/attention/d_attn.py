"""D-Attn (arXiv 2502.01906): diagonal V2V (eq. 2), T2V without RoPE, α-weighting (eq. 4 to 9)."""

from workbench.lvlm.attention import SYSTEMS
from workbench.lvlm.attention.decomposed import Decomposed


class DAttn(Decomposed):
    name = "d_attn"


SYSTEMS.add("d_attn", DAttn())
