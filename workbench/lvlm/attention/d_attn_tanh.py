"""D-Attn with a learned tanh gate: SA + tanh(g)·XA (Table 3, Tanh).

SA is the text's causal self-attention, XA its attention to the visual tokens before it, each with
a softmax of its own; g is one number a layer, 0 at the start, so that training begins from the
text alone, as in Flamingo. An ablation of arXiv 2502.01906. O(V), at D-Attn's cost. It gives up
V2V and needs training.
"""

import torch
from torch import Tensor

from workbench.lvlm.attention import SYSTEMS
from workbench.lvlm.attention.gated import Gated, GatedLayer


class TanhLayer(GatedLayer):
    def combine(self, sa: Tensor, xa: Tensor) -> Tensor:
        return sa + torch.tanh(self.gate) * xa


class DAttnTanh(Gated):
    name = "d_attn_tanh"
    layer_class = TanhLayer


SYSTEMS.add("d_attn_tanh", DAttnTanh())
