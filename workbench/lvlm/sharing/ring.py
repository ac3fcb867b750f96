"""Ring attention (arXiv 2310.01889): ranks share the rows of one sequence, and none has them all.

The exact attention over several ranks that arXiv 2302.06218 claims; it states no algorithm.

**S-Attn.** A rank has S/N rows. Keys and values travel N - 1 steps around the ring, and each step
is one call of a fused kernel, merged by log-sum-exp. Zigzag: of 2N chunks rank n has n and
2N - 1 - n, so that every rank computes (N + 1)S²/2N² pairs and causality allows it S(S + 1)/2N.
Contiguous: rank n has one run of c = S/N rows and computes (n + 1)c² pairs, so that the last one
sets the pace. A backward sends keys and values around again, and their gradients, added up in
float32, N steps, which brings them home.

**Decomposed systems.** Visual rows are token-wise and stay where they are; the text stands on
every rank. A rank's text rows attend to its own visual keys, and what is gathered are these
partial outputs and their log-sum-exps: bytes that do not grow with |V|. Each rank's loss is 1/N of
the text's, so that the gradients of all ranks add up to the whole; what leaves the text for
visual keys is made whole again, and the gradient of the queries is summed over ranks.

With Ulysses (LongVILA's MM-SP, USP) the heads are exchanged inside and the rows outside.

Shapes: q [B, H, R, K], k and v [B, G, R, K], R the rows of a rank of the ring; N ranks.
"""

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from workbench.lvlm.attention import System
from workbench.lvlm.attention.pairs import text_prefixes
from workbench.lvlm.kernels import Branch, Prefix, Scores
from workbench.lvlm.kernels.fused import Backend, Fused, Saved, backward_to, forward_to, wide
from workbench.lvlm.parts import LayerParts
from workbench.lvlm.parts.marks import region
from workbench.lvlm.place import Place
from workbench.lvlm.sharing.ring_link import GRADIENTS, KEYS, Arriving, Link, link_of
from workbench.vocabulary.cell import Cell


@dataclass(frozen=True)
class Block:
    """One step of a ring: these rows of mine meet these of the keys that are here."""

    rows: slice
    keys: slice
    causal: bool = False


ALL = slice(None)


def cut(x: Tensor, rows: slice) -> Tensor:
    """Some rows of [B, H, R, ...]."""
    return x if rows == ALL else x[:, :, rows]


def blocks_of(number: int, count: int, rows: int, zigzag: bool) -> list[Block | None]:
    """What a rank computes in each step; None where causality hides all of it."""
    blocks: list[Block | None] = [Block(ALL, ALL, causal=True)]
    half = rows // 2
    for step in range(1, count):
        if number >= step:  # These keys come from a rank before this one.
            blocks.append(Block(ALL, slice(0, half) if zigzag else ALL))
        else:
            blocks.append(Block(slice(half, rows), ALL) if zigzag else None)
    return blocks


class _Ring(torch.autograd.Function):
    """Causal attention of this rank's rows to those of all ranks."""

    @staticmethod
    def forward(
        ctx: Any,
        backend: Backend,
        link: Link,
        zigzag: bool,
        scale: float,
        q: Tensor,
        k: Tensor,
        v: Tensor,
    ) -> Tensor:
        blocks = blocks_of(link.number, link.count, q.shape[2], zigzag)
        present = torch.stack((k, v))
        saved: list[Saved | None] = []
        merged, lse = None, None
        for step, block in enumerate(blocks):
            last = step + 1 == link.count
            coming = None if last else link.send_on(present, KEYS)
            if block is None:
                saved.append(None)
            else:
                keys, values = present[:, :, :, block.keys]
                with region("attention"):
                    out, cross, extra = backend.forward(
                        cut(q, block.rows), keys, values, block.causal, scale
                    )
                saved.append(extra)
                if merged is None or lse is None:
                    # Clones: the kernel's own may be views of what it saved.
                    merged, lse = wide(out), cross.clone()
                else:
                    with region("merge"):
                        merge_rows(merged, lse, block.rows, out, cross)
                del out, cross
            if coming is not None:
                present = coming.wait()
        assert merged is not None, "the first step is of own rows"
        out = merged.to(q.dtype)
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.call = (backend, link, blocks, scale, saved)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        q, k, v, out, lse = ctx.saved_tensors
        backend, link, blocks, scale, saved = ctx.call
        present = torch.stack((k, v))
        dtype = wide(q[:0]).dtype
        d_q = torch.zeros_like(q, dtype=dtype)
        d_held = torch.zeros_like(present, dtype=dtype)
        arriving: Arriving | None = None
        for step, (block, extra) in enumerate(zip(blocks, saved, strict=True)):
            last = step + 1 == link.count
            coming = None if last else link.send_on(present, KEYS)
            gradients = None
            if block is not None:
                keys, values = present[:, :, :, block.keys]
                with region("attention"):
                    gradients = backend.backward(
                        cut(grad, block.rows),
                        cut(q, block.rows),
                        keys,
                        values,
                        cut(out, block.rows),
                        cut(lse, block.rows),
                        extra,
                        block.causal,
                        scale,
                    )
            if arriving is not None:
                d_held = arriving.wait()
            if gradients is not None:
                d_q[:, :, block.rows] += gradients[0]
                d_held[0][:, :, block.keys] += gradients[1]
                d_held[1][:, :, block.keys] += gradients[2]
                del gradients
            arriving = link.send_on(d_held, GRADIENTS)
            if coming is not None:
                present = coming.wait()
        assert arriving is not None, "a ring has a step"
        d_k, d_v = arriving.wait().to(q.dtype)
        return None, None, None, None, d_q.to(q.dtype), d_k, d_v


def merge_rows(merged: Tensor, lse: Tensor, rows: slice, out: Tensor, seen: Tensor) -> None:
    """Take one more set of keys into a softmax over several, in place, for some of its rows."""
    alpha = torch.sigmoid(seen - lse[:, :, rows]).unsqueeze(-1)
    merged[:, :, rows] = torch.lerp(merged[:, :, rows], wide(out), alpha)
    lse[:, :, rows] = torch.logaddexp(lse[:, :, rows], seen)


class RingAttention:
    """transformers' attention over the rows of a ring, with a fused kernel's back end."""

    def __init__(self, kernel: Fused, link: Link, zigzag: bool) -> None:
        self.kernel, self.link, self.zigzag = kernel, link, zigzag

    def __call__(
        self, module: Any, q: Tensor, k: Tensor, v: Tensor, mask: None, **options: Any
    ) -> tuple[Tensor, None]:
        """[B, heads, R, K] each -> [B, R, H, K]."""
        scale = options.get("scaling") or q.shape[-1] ** -0.5
        out = _Ring.apply(self.kernel.backend(q), self.link, self.zigzag, scale, q, k, v)
        return out.transpose(1, 2).contiguous(), None


class _Gathered(torch.autograd.Function):
    """Text rows over visual keys of all ranks and, where there are ``own`` keys, over those too.

    Every rank has the same text rows and the same gradient of them, 1/N of the whole.
    """

    @staticmethod
    def forward(
        ctx: Any,
        backend: Backend,
        link: Link,
        prefixes: Sequence[Prefix],
        causal: bool,
        scale: float,
        names: tuple[str, str],
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *own: Tensor,
    ) -> Tensor:
        pieces, lses, saved = [], [], []
        for p in prefixes:
            with region(names[1]):
                out, lse, extra = forward_to(backend, p, q, k, v, scale)
            pieces.append(out)
            lses.append(lse)
            saved.append(extra)
        with region("merge"):
            cross, seen_lse = over_ranks(link, torch.cat(pieces, 2), torch.cat(lses, 2))
        del pieces, lses
        own_saved = None
        if own:
            with region(names[0]):
                out, lse, own_saved = backend.forward(own[0], own[1], own[2], causal, scale)
            merged, lse = wide(out), lse.clone()
        else:
            merged = torch.zeros_like(q, dtype=cross.dtype)
            lse = q.new_full(q.shape[:3], -torch.inf, dtype=seen_lse.dtype)
        with region("merge"):
            first = 0
            for p in prefixes:
                stop = first + p.stop - p.start
                mine = slice(first, stop)
                merge_rows(
                    merged, lse, slice(p.start, p.stop), cross[:, :, mine], seen_lse[:, :, mine]
                )
                first = stop
            out = merged.to(q.dtype)
        ctx.save_for_backward(q, k, v, out, lse, *own)
        ctx.call = (backend, link, tuple(prefixes), causal, scale, names, saved, own_saved)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        q, k, v, out, lse, *own = ctx.saved_tensors
        backend, link, prefixes, causal, scale, names, saved, own_saved = ctx.call
        d_q, d_k, d_v = (torch.zeros_like(t) for t in (q, k, v))
        with region(names[1]):
            whole = grad * link.count
            for p, extra in zip(prefixes, saved, strict=True):
                gradients = backward_to(backend, p, whole, q, k, v, out, lse, extra, scale)
                d_q[:, :, p.start : p.stop] = gradients[0]
                d_k[:, :, : p.length] += gradients[1]
                d_v[:, :, : p.length] += gradients[2]
                del gradients
            del whole
            link.add_up(d_q)
            d_q /= link.count
        d_own: tuple[Any, ...] = ()
        if own:
            with region(names[0]):
                d_own = backend.backward(grad, *own, out, lse, own_saved, causal, scale)
        return None, None, None, None, None, None, d_q, d_k, d_v, *d_own


def over_ranks(link: Link, out: Tensor, lse: Tensor) -> tuple[Tensor, Tensor]:
    """One softmax over the keys of all ranks, of each rank's own [B, H, R, K] and [B, H, R]."""
    outs, lses = link.gather(out.contiguous()), link.gather(lse.contiguous())
    whole = torch.logsumexp(lses, 0)
    shares = torch.exp(lses - whole).unsqueeze(-1)
    return (shares * wide(outs)).sum(0), whole


def gathering(kernel: Fused, link: Link) -> Fused:
    """The kernel, whose branches over visual tokens are over those of all ranks."""
    gathered = copy(kernel)

    def across(
        other: Branch, own: Branch | None, prefixes: Sequence[Prefix], scores: Scores
    ) -> Tensor:
        return _Gathered.apply(
            kernel.backend(other.q),
            link,
            tuple(prefixes),
            scores.causal,
            scores.scale,
            ("" if own is None else own.region, other.region),
            other.q,
            other.k,
            other.v,
            *(() if own is None else (own.q, own.k, own.v)),
        )

    gathered.across = across
    return gathered


def over_rows(cell: Cell, kernel: Fused, number: int, traced: bool) -> Callable[..., Any]:
    """transformers' attention of a rank of the ring, for S-Attn."""
    return RingAttention(kernel, link_of(cell, number, traced), cell.ring_order == "zigzag")


def ring_bytes(
    cell: Cell, system: System, layers: Sequence[tuple[LayerParts, Place, int]], item: int
) -> int | None:
    """Bytes that one rank sends around the ring in an iteration; None where there is none.

    A checkpoint's recomputation sends the forward's once more.
    """
    count = cell.ring
    if count == 1:
        return None
    float_ = max(item, 4)
    forwards = 2 if cell.checkpoint else 1
    total = 0
    for parts, place, times in layers:
        if system.ring == "rows":
            rows = (cell.num_visual + cell.num_text) // count
            # Ulysses repeats key and value heads where there are fewer than its ranks.
            heads = max(parts.num_kv_heads, cell.ulysses) // cell.ulysses
            elements = 2 * cell.batch * rows * heads * parts.head_dim
            each = (forwards + 1) * (count - 1) * elements * item + count * elements * float_
        else:
            rows = cell.batch * sum(p.stop - p.start for p in text_prefixes(place.layout))
            wide_ = parts.num_heads * parts.head_dim
            gathered = (count - 1) * rows * (wide_ * item + parts.num_heads * float_)
            summed = cell.batch * place.layout.num_text * wide_ * item if rows else 0
            each = forwards * gathered + -(-2 * (count - 1) * summed // count)
        total += times * each
    return total * cell.accumulate
