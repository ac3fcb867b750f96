"""LFM2's gated convolution between the layers that an attention system changes, as released.

Three projections B, C and x of a token: B·x passes a causal convolution over a few tokens, channel
by channel, whose output C multiplies before the output projection. A decode step takes B·x of the
last tokens. The operators are those of transformers' layer, in its order, or causal-conv1d's
kernel where a card has it (``attention/linear.py`` says when).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from workbench.lvlm.attention import System
from workbench.lvlm.attention.linear import CONVOLUTION, PairlessLayer, fused
from workbench.lvlm.context import Context
from workbench.lvlm.parts import LayerParts
from workbench.lvlm.parts.marks import region
from workbench.lvlm.parts.pairless import ShortConv
from workbench.lvlm.place import Place


class ShortConvLayer(PairlessLayer):
    """The real layer, whose own ``conv`` has projections and taps."""

    tail: Tensor

    def __init__(self, system: System, parts: LayerParts, context: Context, place: Place) -> None:
        super().__init__(system, parts, context, place)
        assert isinstance(parts.linear, ShortConv), "a layer with a convolution"
        self.own, self.sizes = parts.attention, parts.linear
        self.fused = None if self.decode else fused(context, CONVOLUTION, "causal_conv1d_fn")
        if self.decode:
            tail = context.random((context.cell.batch, *self.sizes))
            self.register_buffer("tail", tail, persistent=False)

    def prefill(self, x: Tensor) -> Tensor:
        tokens = x.shape[1]
        gate, rows = self._gated(x)
        if self.kept is not None:
            taps = self.sizes.taps
            rows = F.pad(rows, (taps - tokens, 0)) if tokens < taps else rows
            self.kept.keep(rows[:, :, -taps:].clone())
        with region("attention"):
            if self.fused is not None:
                weight = self.own.conv.weight.squeeze(1)
                rows = self.fused(rows, weight, self.own.conv.bias, activation=None)
            else:
                rows = self._convolved(rows, self.sizes.taps - 1)[:, :, : rows.shape[2]]
        return self._finished(gate, rows[:, :, -tokens:])

    def step(self, x: Tensor) -> Tensor:
        gate, rows = self._gated(x)
        with region("attention"):
            rows = torch.cat((self.tail, rows), 2)
            self.tail.copy_(rows[:, :, 1:])
            rows = self._convolved(rows, 0)[:, :, -1:]
        return self._finished(gate, rows)

    def _gated(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[B, S, D] -> C and B·x, [B, D, S] each."""
        with region("projections"):
            rows = self.own.in_proj(x).transpose(1, 2)
        with region("attention"):
            before, after, values = rows.chunk(3, 1)
            return after, before * values

    def _convolved(self, rows: Tensor, before: int) -> Tensor:
        """[B, D, n] -> [B, D, n + 2·before + 1 - taps], of so many zeros at both ends."""
        own = self.own.conv
        return F.conv1d(rows, own.weight, own.bias, padding=before, groups=self.sizes.width)

    def _finished(self, gate: Tensor, rows: Tensor) -> Tensor:
        with region("attention"):
            rows = (gate * rows).transpose(1, 2).contiguous()
        with region("projections"):
            projected: Tensor = self.own.out_proj(rows)
        return projected
