"""D-Attn with a learned tanh gate: SA + tanh(g)·XA (Table 3, Tanh)."""

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
