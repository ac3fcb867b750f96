"""``sdpa``: torch's scaled_dot_product_attention with the back end of torch's own choice.

The branches of a decomposed system call the fused operator of the device directly, because the
public function does not return the log-sum-exp: flash attention on CUDA and on CPU.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from workbench.lvlm.kernels import HALVES, KERNELS, Branch, Scores
from workbench.lvlm.kernels.fused import Backend, Fused, Saved
from workbench.lvlm.kernels.scratch import (
    FLOAT,
    TILE,
    repeated_gradients,
    rounded,
    transposed_copies,
)
from workbench.vocabulary.errors import Unsupported

aten = torch.ops.aten


class FlashCpu:
    """torch's flash attention for CPU: float64, float32, bfloat16 and float16, GQA native."""

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float
    ) -> tuple[Tensor, Tensor, Saved]:
        out, lse = aten._scaled_dot_product_flash_attention_for_cpu(
            q, k, v, 0.0, causal, scale=scale
        )
        return out, lse, Saved()

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
        return aten._scaled_dot_product_flash_attention_for_cpu_backward(
            grad, q, k, v, out, lse, 0.0, causal, scale=scale
        )


class FlashCuda:
    """FlashAttention 2 as torch ships it: bfloat16, float16, head size up to 256, GQA native."""

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float
    ) -> tuple[Tensor, Tensor, Saved]:
        out, lse, cum_q, cum_k, max_q, max_k, seed, offset, _ = (
            aten._scaled_dot_product_flash_attention(q, k, v, 0.0, causal, False, scale=scale)
        )
        return out, lse, Saved((cum_q, cum_k, max_q, max_k, seed, offset))

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
        cum_q, cum_k, max_q, max_k, seed, offset = saved.extra
        return aten._scaled_dot_product_flash_attention_backward(
            grad,
            q,
            k,
            v,
            out,
            lse.contiguous(),
            cum_q,
            cum_k,
            max_q,
            max_k,
            0.0,
            causal,
            seed,
            offset,
            scale=scale,
        )


FLASH_TEMPORARIES = (
    "backward: row sums, float32 dQ, dK and dV by head, and copies of tensors whose rows do not "
    "follow each other (pytorch flash_attn/flash_api.cpp)"
)


def flash_temporaries(grad: Tensor, q: Tensor, k: Tensor, out: Tensor) -> tuple[int, ...]:
    """Of FlashAttention 2's backward as torch ships it: float32 dQ, row sums, dK and dV by head.

    Source: pytorch, aten/src/ATen/native/transformers/cuda/flash_attn/flash_api.cpp, mha_bwd, and
    attention_backward.cu, _flash_attention_backward.
    """
    batch, heads, rows, size = q.shape
    wide = rounded(size, 32 if size <= 128 else 64)
    each = FLOAT * batch * heads * rounded(rows, TILE)
    return (each, each * wide, *repeated_gradients(q, k), *transposed_copies(grad, out))


class Sdpa(Fused):
    """The default kernel."""

    name = "sdpa"
    hf = "sdpa"
    temporaries_from = FLASH_TEMPORARIES
    takes_rows = True
    widest = 256
    dtypes = HALVES
    limits_whole = False  # torch chooses another back end for the real layer.

    def masked(self, branch: Branch, seen: Tensor, scores: Scores) -> Tensor:
        gqa = branch.q.shape[1] != branch.k.shape[1]
        return F.scaled_dot_product_attention(
            branch.q, branch.k, branch.v, attn_mask=seen, scale=scores.scale, enable_gqa=gqa
        )

    def temporaries(self, grad: Tensor, q: Tensor, k: Tensor, out: Tensor) -> tuple[int, ...]:
        # Where torch chooses cuDNN, that keeps the same tensors; neither takes 32 bits.
        return flash_temporaries(grad, q, k, out) if q.element_size() == 2 else ()

    def backend(self, like: Tensor) -> Backend:
        if like.device.type in ("cpu", "meta"):
            return FlashCpu()
        if like.dtype not in (torch.bfloat16, torch.float16):
            raise Unsupported(
                f"kernel {self.name!r} on CUDA: flash attention needs bfloat16 or float16, "
                f"not {like.dtype}"
            )
        return FlashCuda()


KERNELS.add("sdpa", Sdpa())
