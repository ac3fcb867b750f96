"""Shared by the merges that are not α: T2T and T2V with a softmax each, combined by a rule."""

import torch
from torch import Tensor, nn

from workbench.lvlm.attention import System
from workbench.lvlm.attention.decomposed import Decomposed, DecomposedLayer, prefix_rows
from workbench.lvlm.context import Context
from workbench.lvlm.kernels import Branch, Scores
from workbench.lvlm.parts import LayerParts
from workbench.lvlm.parts.marks import region
from workbench.lvlm.place import Place


class TwoBranchLayer(DecomposedLayer):
    """``combine`` says how; rows that see no visual token take SA alone."""

    def __init__(self, system: System, parts: LayerParts, context: Context, place: Place) -> None:
        super().__init__(system, parts, context, place)
        self.sees = prefix_rows(self.prefixes, self.num_rows, context)

    def merge(self, own: Branch, other: Branch, scores: Scores, x: Tensor) -> Tensor:
        sa, xa = self.apart(own, other, scores)
        with region("merge"):
            return self.combine(sa, xa)

    def combine(self, sa: Tensor, xa: Tensor) -> Tensor:
        """SA and XA [B, H, T, K] -> [B, H, T, K]; XA is 0 where nothing is seen."""
        return sa + xa


class GatedLayer(TwoBranchLayer):
    """One learned gate a layer, 0 at the start."""

    def __init__(self, system: System, parts: LayerParts, context: Context, place: Place) -> None:
        super().__init__(system, parts, context, place)
        self.gate = nn.Parameter(torch.zeros(1, dtype=context.dtype, device=context.device))


class Gated(Decomposed):
    """Costs of a gated system."""

    def extra_parameters(self, parts: LayerParts, place: Place) -> int:
        return 1
