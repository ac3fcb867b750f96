"""D-Attn with a learned sigmoid gate: σ(g)·XA + (1 − σ(g))·SA (Table 3, Sigmoid).

SA is the text's causal self-attention, XA its attention to the visual tokens before it, each with
a softmax of its own; g is one number a layer, 0 at the start, so both weigh a half. Rows that see
no visual token take SA alone. An ablation of arXiv 2502.01906. O(V), at D-Attn's cost. It gives
up V2V and needs training.
"""

import torch
from torch import Tensor

from workbench.lvlm.attention import SYSTEMS
from workbench.lvlm.attention.gated import Gated, GatedLayer


class SigmoidLayer(GatedLayer):
    def combine(self, sa: Tensor, xa: Tensor) -> Tensor:
        gate = torch.sigmoid(self.gate)
        return sa + (gate if self.sees is None else gate * self.sees) * (xa - sa)


class DAttnSigmoid(Gated):
    name = "d_attn_sigmoid"
    layer_class = SigmoidLayer


SYSTEMS.add("d_attn_sigmoid", DAttnSigmoid())
