"""Fused attention over two streams: one fused call a segment, merged by log-sum-exp, no mask.

For a softmax over the union of key sets i, ``lse = logaddexp_i(lse_i)`` and
``out = Σ exp(lse_i − lse)·out_i``. The backward of each fused call only needs the probabilities
``exp(s − lse)`` and ``delta = Σ grad·out``; given the **merged** out and lse it returns the exact
gradients of the merged softmax. Working memory is O(rows + keys).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from workbench.lvlm.kernels import Branch, Kernel, Prefix, Scores
from workbench.lvlm.layout import word_of
from workbench.lvlm.parts import LayerParts
from workbench.lvlm.parts.marks import region
from workbench.vocabulary.errors import Unsupported


class Saved(NamedTuple):
    """What a fused forward hands to its backward besides out and lse (seeds, offsets)."""

    extra: tuple[Any, ...] = ()


class Backend(Protocol):
    """A fused kernel's forward and backward, GQA included. lse is [B, H, R] float32 or wider."""

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float
    ) -> tuple[Tensor, Tensor, Saved]: ...

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
    ) -> tuple[Tensor, Tensor, Tensor]: ...


class _Merged(torch.autograd.Function):
    """One softmax over the own stream and visible prefixes of the other."""

    @staticmethod
    def forward(
        ctx: Any,
        backend: Backend,
        prefixes: Sequence[Prefix],
        causal: bool,
        scale: float,
        names: tuple[str, str],
        q: Tensor,
        k: Tensor,
        v: Tensor,
        q_other: Tensor,
        k_other: Tensor,
        v_other: Tensor,
    ) -> Tensor:
        with region(names[0]):
            out, lse, own_saved = backend.forward(q, k, v, causal, scale)
        saved = [own_saved]
        for p in prefixes:
            rows = slice(p.start, p.stop)
            with region(names[1]):
                cross, seen_lse, seen_saved = forward_to(
                    backend, p, q_other, k_other, v_other, scale
                )
            saved.append(seen_saved)
            with region("merge"):
                alpha = torch.sigmoid(seen_lse - lse[:, :, rows]).unsqueeze(-1)
                mixed = torch.lerp(wide(out[:, :, rows]), wide(cross), alpha)
                merged_lse = torch.logaddexp(lse[:, :, rows], seen_lse)
                if p.stop - p.start == q.shape[2]:
                    out, lse = mixed.to(out.dtype), merged_lse
                else:
                    out[:, :, rows], lse[:, :, rows] = mixed.to(out.dtype), merged_lse
        ctx.save_for_backward(q, k, v, q_other, k_other, v_other, out, lse)
        ctx.call = (backend, tuple(prefixes), causal, scale, names, saved)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        q, k, v, q_other, k_other, v_other, out, lse = ctx.saved_tensors
        backend, prefixes, causal, scale, names, saved = ctx.call
        with region(names[0]):
            d_own = backend.backward(grad, q, k, v, out, lse, saved[0], causal, scale)
        with region(names[1]):
            whole = len(prefixes) == 1 and _covers(prefixes[0], q_other, k_other)
            d_other = None if whole else [torch.zeros_like(t) for t in (q_other, k_other, v_other)]
            for p, seen_saved in zip(prefixes, saved[1:], strict=True):
                grads = backward_to(
                    backend, p, grad, q_other, k_other, v_other, out, lse, seen_saved, scale
                )
                if d_other is None:
                    return (None, None, None, None, None, *d_own, *grads)
                d_other[0][:, :, p.start : p.stop] += grads[0]
                d_other[1][:, :, : p.length] += grads[1]
                d_other[2][:, :, : p.length] += grads[2]
        return (None, None, None, None, None, *d_own, *(d_other or (None, None, None)))


def forward_to(
    backend: Backend, p: Prefix, q: Tensor, k: Tensor, v: Tensor, scale: float
) -> tuple[Tensor, Tensor, Saved]:
    """``backend.forward`` of the rows that see a prefix, to all of its keys."""
    return backend.forward(
        rows_of(q, p.start, p.stop),
        rows_of(k, 0, p.length),
        rows_of(v, 0, p.length),
        False,
        scale,
    )


def backward_to(
    backend: Backend,
    p: Prefix,
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    saved: Saved,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """``backend.backward`` of the same; ``out`` and ``lse`` may be of a softmax over more keys."""
    return backend.backward(
        rows_of(grad, p.start, p.stop),
        rows_of(q, p.start, p.stop),
        rows_of(k, 0, p.length),
        rows_of(v, 0, p.length),
        rows_of(out, p.start, p.stop),
        rows_of(lse, p.start, p.stop),
        saved,
        False,
        scale,
    )


class _Single(torch.autograd.Function):
    """One fused call: attention of all rows to all keys, or causal to their own stream."""

    @staticmethod
    def forward(
        ctx: Any, backend: Backend, causal: bool, scale: float, q: Tensor, k: Tensor, v: Tensor
    ) -> Tensor:
        out, lse, saved = backend.forward(q, k, v, causal, scale)
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.call = (backend, causal, scale, saved)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        q, k, v, out, lse = ctx.saved_tensors
        backend, causal, scale, saved = ctx.call
        return (None, None, None, *backend.backward(grad, q, k, v, out, lse, saved, causal, scale))


Across = Callable[[Branch, Branch | None, Sequence[Prefix], Scores], Tensor]
"""The branch over the other stream, that over the own one if they are merged, prefixes, scores."""


class Fused(Kernel):
    """A kernel whose branches run on a fused backend."""

    across: Across | None = None
    """What serves branches over the other stream instead, where ranks share that (ring)."""

    def backend(self, like: Tensor) -> Backend:
        """The backend for tensors like this one; raises Unsupported where there is none."""
        raise NotImplementedError

    def refuse(self, parts: LayerParts, decomposed: bool, window_bites: bool) -> None:
        if decomposed or self.limits_whole:
            super().refuse(parts, decomposed, window_bites)
        family = parts.attention.config.model_type
        if parts.softcap is not None:
            raise Unsupported(
                f"kernel {self.name!r} has no soft-capping of scores, which {family} needs "
                f"({parts.softcap:g})"
            )
        if decomposed and window_bites:
            raise Unsupported(
                f"kernel {self.name!r} has no {word_of(parts.window)} over two streams, which "
                f"{family} needs ({parts.window} tokens)"
            )

    def own(self, branch: Branch, scores: Scores) -> Tensor:
        backend = self.backend(branch.q)
        return _Single.apply(backend, scores.causal, scores.scale, *_tensors(branch))

    def cross(self, branch: Branch, prefixes: Sequence[Prefix], scores: Scores) -> Tensor:
        if self.across is not None:
            return self.across(branch, None, prefixes, scores)
        backend, pieces, row = self.backend(branch.q), [], 0
        for p in prefixes:
            if p.start > row:
                pieces.append(torch.zeros_like(branch.q[:, :, row : p.start]))
            q = rows_of(branch.q, p.start, p.stop)
            k, v = rows_of(branch.k, 0, p.length), rows_of(branch.v, 0, p.length)
            pieces.append(_Single.apply(backend, False, scores.scale, q, k, v))
            row = p.stop
        if row < branch.q.shape[2]:
            pieces.append(torch.zeros_like(branch.q[:, :, row:]))
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, 2)

    def merged(
        self, own: Branch, other: Branch, prefixes: Sequence[Prefix], scores: Scores
    ) -> Tensor:
        if not prefixes:
            return self.own(own, scores)
        if self.across is not None:
            return self.across(other, own, prefixes, scores)
        return _Merged.apply(
            self.backend(own.q),
            tuple(prefixes),
            scores.causal,
            scores.scale,
            (own.region, other.region),
            *_tensors(own),
            *_tensors(other),
        )


def _tensors(branch: Branch) -> tuple[Tensor, Tensor, Tensor]:
    return branch.q, branch.k, branch.v


def rows_of(x: Tensor, start: int, stop: int) -> Tensor:
    return x if start == 0 and stop == x.shape[2] else x[:, :, start:stop]


def _covers(p: Prefix, q: Tensor, k: Tensor) -> bool:
    return p.start == 0 and p.stop == q.shape[2] and p.length == k.shape[2]


def wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
