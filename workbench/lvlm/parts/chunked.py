"""Token-wise work in chunks with recomputation: the working set is O(chunk), not O(tokens).

One helper for D-Attn's visual stream and for S-Attn's tiled MLP and logits.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from workbench.lvlm.parts.loops import identical_iterations

TokenWise = Callable[..., tuple[Tensor, ...]]
"""(x [B, n, ...], …) -> (y [B, n, ...], …), each row depending on that row of the inputs only."""


def token_chunks(
    fn: TokenWise, chunk: int, inputs: Sequence[Tensor], weights: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """``fn`` over chunks of dimension 1, recomputed chunk by chunk in backward.

    ``weights`` are the parameters that ``fn`` uses; their gradients are summed over the chunks in
    float32 or wider. Exact up to the order of that sum.
    """
    return _Chunked.apply(fn, chunk, len(inputs), *inputs, *weights)


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, fn: TokenWise, chunk: int, num_inputs: int, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        inputs = tensors[:num_inputs]
        ctx.save_for_backward(*tensors)
        ctx.call = (fn, chunk, num_inputs)
        length, outputs = inputs[0].shape[1], None
        for start in identical_iterations(range(0, length, chunk)):
            parts = fn(*(x[:, start : start + chunk] for x in inputs))
            if outputs is None:
                outputs = tuple(p.new_empty(p.shape[0], length, *p.shape[2:]) for p in parts)
            for whole, part in zip(outputs, parts, strict=True):
                whole[:, start : start + chunk] = part
            del parts
        assert outputs is not None, "at least one token"
        return outputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        fn, chunk, num_inputs = ctx.call
        saved = ctx.saved_tensors  # Under a checkpoint it can be read only once.
        inputs, weights = saved[:num_inputs], saved[num_inputs:]
        needs_grad = ctx.needs_input_grad[3:]
        d_inputs = [
            torch.empty_like(x) if want else None
            for x, want in zip(inputs, needs_grad, strict=False)
        ]
        trained = [w for w, want in zip(weights, needs_grad[num_inputs:], strict=True) if want]
        sums: list[Tensor | None] = [None] * len(trained)
        for start in identical_iterations(range(0, inputs[0].shape[1], chunk)):
            rows = slice(start, start + chunk)
            with torch.enable_grad():
                xs = [
                    x[:, rows].detach().requires_grad_(d is not None)
                    for x, d in zip(inputs, d_inputs, strict=True)
                ]
                outs = fn(*xs)
            sources = [x for x in xs if x.requires_grad] + trained
            pairs = [(o, g[:, rows]) for o, g in zip(outs, grads, strict=True) if o.requires_grad]
            gradients = torch.autograd.grad(
                [o for o, _ in pairs], sources, [g for _, g in pairs], allow_unused=True
            )
            del outs, pairs
            for d, g in zip([d for d in d_inputs if d is not None], gradients, strict=False):
                d[:, rows] = 0 if g is None else g
            _accumulate(sums, gradients[len(sources) - len(trained) :])
        grads_of = iter(
            None if s is None else s.to(w.dtype) for s, w in zip(sums, trained, strict=True)
        )
        d_weights = [next(grads_of) if want else None for want in needs_grad[num_inputs:]]
        return (None, None, None, *d_inputs, *d_weights)


def _accumulate(sums: list[Tensor | None], gradients: Sequence[Tensor | None]) -> None:
    for i, g in enumerate(gradients):
        if g is None:
            continue
        total = sums[i]
        if total is None:
            sums[i] = g if g.dtype == torch.float64 else g.float()
        else:
            total += g


class Tiled(nn.Module):
    """A token-wise module run in tiles: S-Attn's MLP at its best practice (``--tiled``)."""

    def __init__(self, inner: nn.Module, tile: int) -> None:
        super().__init__()
        self.inner = inner
        self.tile = tile

    def forward(self, x: Tensor) -> Tensor:
        """[B, S, D] -> [B, S, D]."""
        if x.shape[1] <= self.tile:
            return self.inner(x)
        weights = list(self.inner.parameters())
        return token_chunks(lambda part: (self.inner(part),), self.tile, [x], weights)[0]
