"""Families whose routers have a bias of their own, which no gradient reaches."""

from typing import Any

import torch

from workbench.lvlm.models import Family


class Biased(Family):
    """The bias is a buffer, 0 before training."""

    def settle(self, layer: Any, device: torch.device, dtype: torch.dtype) -> None:
        router = self.router(layer)
        if router is not None:
            count = layer.mlp.experts.num_experts
            bias = torch.zeros(count, device=device, dtype=torch.float32)
            router.e_score_correction_bias = bias
