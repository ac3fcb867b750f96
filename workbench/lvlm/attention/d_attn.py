"""D-Attn (arXiv 2502.01906): diagonal V2V (eq. 2), T2V without RoPE, α-weighting (eq. 4 to 9).

Visual tokens do not attend to each other: each takes its own value, W_o(v), its residual and the
layer's MLP. Text rows keep their causal self-attention, and read the visual tokens before them
with keys and queries that are not rotated, so that no image is nearer than another; one softmax
over both (α-weighting, merged by log-sum-exp) equals attention over their union. On the model's
own weights, without new parameters. O(V) in every layer: T·V pairs, and the visual MLP, which is
most of what is left. It gives up V2V, what a visual token learns of others inside the decoder, and
needs training. Several GPUs share its visual tokens by ``--ring``, for bytes that do not grow
with |V|.
"""

from workbench.lvlm.attention import SYSTEMS
from workbench.lvlm.attention.decomposed import Decomposed


class DAttn(Decomposed):
    name = "d_attn"


SYSTEMS.add("d_attn", DAttn())
