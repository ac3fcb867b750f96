"""``efficient``: xFormers' memory-efficient attention as torch ships it. CUDA only, float32 too.

It knows no GQA: keys and values are repeated to the query's heads, and their gradients summed.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend

from workbench.lvlm.kernels import HALVES, KERNELS
from workbench.lvlm.kernels.chosen import Chosen
from workbench.lvlm.kernels.fused import Backend, Saved
from workbench.lvlm.kernels.modelled import REPEATED, register, tracing
from workbench.lvlm.kernels.scratch import FLOAT, rounded, transposed_copies
from workbench.lvlm.kernels.sdpa import FlashCpu

aten = torch.ops.aten

MOST_SPLITS = 200
"""Runs of keys, over all heads, that get gradients of their own (attention_backward.cu)."""
LOCK_BYTES = 16

LSE_ALIGNMENT = 32
"""Rows to which the operator pads the log-sum-exp, infinite there (kAlignLSE of its kernel)."""


class Repeated:
    """A backend for as many key/value heads as query heads, made to take GQA."""

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float
    ) -> tuple[Tensor, Tensor, Saved]:
        return self.attend(q, *_repeat(q, k, v), causal, scale)

    def backward(
        self,
        grad: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        out: Tensor,
        lse: Tensor,
        saved: Saved,
        causal: bool,
        scale: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        wide = _repeat(q, k, v)
        dq, dk, dv = self.differentiate(grad, q, *wide, out, lse, saved, causal, scale)
        return dq, _fold(dk, k), _fold(dv, v)

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float
    ) -> tuple[Tensor, Tensor, Saved]:
        """The operator: output, log-sum-exp [B, H, R] and the random state."""
        out, lse, seed, offset = aten._scaled_dot_product_efficient_attention(
            q, k, v, None, True, 0.0, causal, scale=scale
        )
        return out, lse[:, :, : q.shape[2]], Saved((seed, offset))

    def differentiate(
        self,
        grad: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        out: Tensor,
        lse: Tensor,
        saved: Saved,
        causal: bool,
        scale: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of q, k and v, all with the query's heads."""
        padded = F.pad(lse, (0, -lse.shape[2] % LSE_ALIGNMENT), value=float("inf"))
        dq, dk, dv, _ = aten._scaled_dot_product_efficient_attention_backward(
            grad,
            q,
            k,
            v,
            None,
            out,
            padded.contiguous(),
            *saved.extra,
            0.0,
            (True, True, True, False),
            causal,
            scale=scale,
        )
        return dq, dk, dv


class ModelledRepeated(Repeated):
    """The same in a prediction, by the shapes of flash attention."""

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float
    ) -> tuple[Tensor, Tensor, Saved]:
        return FlashCpu().forward(q, k, v, causal, scale)

    def differentiate(
        self,
        grad: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        out: Tensor,
        lse: Tensor,
        saved: Saved,
        causal: bool,
        scale: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        return FlashCpu().backward(grad, q, k, v, out, lse, saved, causal, scale)


class Efficient(Chosen):
    name = "efficient"
    dtypes = (*HALVES, "float32")
    choice = SDPBackend.EFFICIENT_ATTENTION
    takes_mask = True
    native_gqa = False
    temporaries_from = "backward: row sums, float32 tiles of dQ (pytorch mem_eff_attention)"

    def implementation(self, traced: bool) -> str:
        register()
        return REPEATED

    def temporaries(self, grad: Tensor, q: Tensor, k: Tensor, out: Tensor) -> tuple[int, ...]:
        # pytorch, mem_eff_attention/kernel_backward.h, workspace_size: dQ in float32 tiles with a
        # lock each, and dK and dV where a head does not fit the registers; and delta. The blocks
        # are those of kernels/cutlassB.h for compute capability 8.0 and later.
        batch, heads, rows, size = q.shape
        half = q.element_size() == 2
        high, wide = _tile(size, half)
        tiles = -(-rows // high) * -(-size // wide)
        elements = tiles * (high * wide + LOCK_BYTES // FLOAT)
        if half and size > 128:
            splits = max(1, min(-(-k.shape[2] // wide), MOST_SPLITS // (batch * heads)))
            elements += 2 * splits * wide * rounded(size, high)
        delta = FLOAT * batch * heads * rows
        return (delta, FLOAT * batch * heads * elements, *transposed_copies(grad))

    def backend(self, like: Tensor) -> Backend:
        return ModelledRepeated() if tracing(like.device) else Repeated()


KERNELS.add("efficient", Efficient())


def _tile(size: int, half: bool) -> tuple[int, int]:
    """Rows of queries and of keys in a block of the backward, by head size and data type."""
    if size <= 64:
        return 64, 64
    return (128, 128) if half and size <= 128 else (128, 64)


def _repeat(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    repeats = q.shape[1] // k.shape[1]
    return (
        (k, v)
        if repeats == 1
        else (k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1))
    )


def _fold(wide: Tensor, narrow: Tensor) -> Tensor:
    """Sum the gradients of repeated heads: [B, H, C, K] -> [B, G, C, K]."""
    if wide.shape[1] == narrow.shape[1]:
        return wide
    return wide.unflatten(1, (narrow.shape[1], -1)).sum(2)
