"""``cudnn``: cuDNN's fused attention through torch. CUDA only, bfloat16 or float16, GQA native."""

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend

from workbench.lvlm.kernels import HALVES, KERNELS
from workbench.lvlm.kernels.chosen import Chosen
from workbench.lvlm.kernels.fused import Backend, Saved
from workbench.lvlm.kernels.modelled import SHAPES, register, tracing
from workbench.lvlm.kernels.scratch import FLOAT, repeated_gradients
from workbench.lvlm.kernels.sdpa import FlashCpu

aten = torch.ops.aten


class CudnnCuda:
    """The operator and its backward; its log-sum-exp carries a last dimension of 1."""

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float
    ) -> tuple[Tensor, Tensor, Saved]:
        out, lse, cum_q, cum_k, max_q, max_k, seed, offset, _ = (
            aten._scaled_dot_product_cudnn_attention(
                q, k, v, None, True, 0.0, causal, False, scale=scale
            )
        )
        state = Saved((seed, offset, cum_q, cum_k, max_q, max_k, lse.ndim))
        return out, lse.reshape(out.shape[:3]), state

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
        seed, offset, cum_q, cum_k, max_q, max_k, ndim = saved.extra
        lse = lse.contiguous()
        return aten._scaled_dot_product_cudnn_attention_backward(
            grad,
            q,
            k,
            v,
            out,
            lse.unsqueeze(-1) if ndim == 4 else lse,
            seed,
            offset,
            None,
            cum_q,
            cum_k,
            max_q,
            max_k,
            0.0,
            causal,
            scale=scale,
        )


class Cudnn(Chosen):
    name = "cudnn"
    widest = 256
    dtypes = HALVES
    choice = SDPBackend.CUDNN_ATTENTION
    temporaries_from = "backward: row sums, float32 dQ, dK and dV by head (cudnn-frontend)"

    def implementation(self, traced: bool) -> str:
        if not traced:
            return self.hf
        register()
        return SHAPES

    def temporaries(self, grad: Tensor, q: Tensor, k: Tensor, out: Tensor) -> tuple[int, ...]:
        # cudnn-frontend, node/scaled_dot_product_flash_attention.h, CompositeSDPABackwardNode:
        # softmax_sum, dQ_accum, and dK and dV of every head.
        batch, heads, rows, size = q.shape
        each = FLOAT * batch * heads * rows
        return (each, each * size, *repeated_gradients(q, k))

    def backend(self, like: Tensor) -> Backend:
        return FlashCpu() if tracing(like.device) else CudnnCuda()


KERNELS.add("cudnn", Cudnn())
