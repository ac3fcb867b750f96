"""D-Attn with a learned sigmoid gate: σ(g)·XA + (1 − σ(g))·SA (Table 3, Sigmoid)."""

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
