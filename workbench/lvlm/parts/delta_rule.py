"""The gated delta rule of linear layers (Gated DeltaNet, arXiv 2412.06464), in torch's operators.

Of each head, with a state S of [K, W], a decay g ≤ 0 and a rate β of each token:

    S_t = exp(g_t)·S_{t-1} + k_t (β_t (v_t - exp(g_t)·S_{t-1}ᵀ k_t))ᵀ        o_t = S_tᵀ q_t / √K

q and k are normed to length 1. ``step`` is one token of it, ``chunked`` a whole sequence in chunks
of 64 tokens: within a chunk the updates are one triangular system, and the state passes from
chunk to chunk. It computes what transformers' ``torch_chunk_gated_delta_rule`` does, in float32
or wider; its scan over the chunks has a backward of its own, because autograd's would copy the
gradient of all chunks once for every chunk.

Shapes: B batch, S tokens, G heads of queries and keys, H heads of values, n chunks of C tokens, K
size of a key, W size of a value.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from workbench.lvlm.parts.loops import identical_iterations

CHUNK = 64
"""Tokens of a chunk, as transformers and flash-linear-attention have it."""
EPS = 1e-6
"""Of the norm of queries and keys."""


def wide(dtype: torch.dtype) -> torch.dtype:
    """What the rule computes in, and holds its state in."""
    return torch.promote_types(dtype, torch.float32)


def step(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """One token: [B, 1, G, K] twice, [B, 1, H, W], [B, 1, H] twice and the state [B, H, K, W]
    before it -> [B, 1, H, W] and the state after it.
    """
    q, k = (_normed(x) for x in _spread(q, k, heads=v.shape[2]))
    q, k = q * k.shape[-1] ** -0.5, k
    value, decay, rate = (x.transpose(1, 2).to(state.dtype) for x in (v, g, beta))
    state = state * decay.exp()[..., None]
    recalled = torch.matmul(k, state)
    state = state + torch.matmul(k.transpose(2, 3), (value - recalled) * rate[..., None])
    return torch.matmul(q, state).transpose(1, 2).to(v.dtype), state


def chunked(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
    """A whole sequence from an empty state: [B, S, G, K] twice, [B, S, H, W], [B, S, H] twice
    -> [B, S, H, W], and the state [B, H, K, W] after the last token.
    """
    tokens = v.shape[1]
    rest = -tokens % CHUNK
    q, k = (_normed(x) for x in _spread(q, k, heads=v.shape[2]))
    q = q * q.shape[-1] ** -0.5
    value, decay, rate = (
        x.transpose(1, 2).to(wide(v.dtype), memory_format=torch.contiguous_format)
        for x in (v, g, beta)
    )
    # Whole chunks: tokens of zeros change no state.
    q, k, value = (F.pad(x, (0, 0, 0, rest)) for x in (q, k, value))
    rate, decay = (F.pad(x, (0, rest)) for x in (rate, decay))
    # Names are not used again: transformers, too, holds all of these to the end.
    rated_value, rated = value * rate[..., None], k * rate[..., None]
    q, k, rated_value, rated = (x.unflatten(2, (-1, CHUNK)) for x in (q, k, rated_value, rated))
    # By how much, as a logarithm, a state decays from the chunk's beginning to each of its tokens.
    until = decay.unflatten(2, (-1, CHUNK)).cumsum(3)
    later = torch.ones(CHUNK, CHUNK, dtype=torch.bool, device=q.device).triu(1)
    between = until[..., :, None] - until[..., None, :]
    between = between.masked_fill(later, float("-inf"))
    between = between.exp()
    system = (rated @ k.transpose(3, 4)) * between
    scores = (q @ k.transpose(3, 4)) * between
    decayed = rated * until.exp()[..., None]
    # Each token's update allows for those before it in the chunk: unit lower triangular.
    update, reading = (
        torch.linalg.solve_triangular(system, x, upper=False, unitriangular=True)
        for x in (rated_value, decayed)
    )
    q = q * until.exp()[..., None]
    k = k * (until[..., -1:] - until).exp()[..., None]
    out, state = _Scan.apply(update, reading, q, k, scores, until[..., -1].exp())
    out = out.flatten(2, 3)[:, :, :tokens].transpose(1, 2)
    return out.to(v.dtype, memory_format=torch.contiguous_format), state


def _spread(*tensors: Tensor, heads: int) -> list[Tensor]:
    """[B, S, G, K] -> [B, H, S, K], wide, each head as often as it serves heads of values."""
    copies = []
    for x in tensors:
        if x.shape[2] != heads:
            x = x.repeat_interleave(heads // x.shape[2], 2)
        x = x.transpose(1, 2)
        copies.append(x.to(wide(x.dtype), memory_format=torch.contiguous_format))
    return copies


def _normed(x: Tensor) -> Tensor:
    return x * torch.rsqrt((x * x).sum(-1, keepdim=True) + EPS)


class _Scan(torch.autograd.Function):
    """The state through the chunks, and what every chunk reads of it."""

    @staticmethod
    def forward(
        ctx: Any,
        value: Tensor,
        reading: Tensor,
        q: Tensor,
        k: Tensor,
        scores: Tensor,
        ratio: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """[B, H, n, C, W], three of [B, H, n, C, K], [B, H, n, C, C], [B, H, n] -> the output
        [B, H, n, C, W] and the last state [B, H, K, W].
        """
        size, chunks = (q.shape[-1], value.shape[-1]), value.shape[2]
        state = value.new_zeros(*value.shape[:2], *size)
        out = value.new_empty(value.shape)
        needs_grad = any(ctx.needs_input_grad)
        if needs_grad:
            states = value.new_empty(*value.shape[:3], *size)
            updates = value.new_empty(value.shape)
        for at in identical_iterations(range(chunks)):
            update = value[:, :, at] - reading[:, :, at] @ state
            out[:, :, at] = q[:, :, at] @ state + scores[:, :, at] @ update
            if needs_grad:
                states[:, :, at], updates[:, :, at] = state, update
            state = state * ratio[:, :, at, None, None] + k[:, :, at].mT @ update
        if needs_grad:
            ctx.save_for_backward(reading, q, k, scores, ratio, states, updates)
        return out, state

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        d_out, d_state = grads
        reading, q, k, scores, ratio, states, updates = ctx.saved_tensors
        d_scores = d_out @ updates.mT
        d_q = d_out @ states.mT
        d_update = scores.mT @ d_out
        d_k, d_ratio = torch.empty_like(k), torch.empty_like(ratio)
        for step in identical_iterations(range(ratio.shape[2])):
            at = ratio.shape[2] - 1 - step
            d_update[:, :, at] += k[:, :, at] @ d_state
            d_k[:, :, at] = updates[:, :, at] @ d_state.mT
            d_ratio[:, :, at] = (states[:, :, at] * d_state).sum((-1, -2))
            d_state = (
                d_state * ratio[:, :, at, None, None]
                + q[:, :, at].mT @ d_out[:, :, at]
                - reading[:, :, at].mT @ d_update[:, :, at]
            )
        d_reading = -(d_update @ states.mT)
        return d_update, d_reading, d_q, d_k, d_scores, d_ratio
