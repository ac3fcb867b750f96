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
import torch.distributed as dist
from torch import Tensor

from workbench.lvlm.attention import SYSTEMS, System
from workbench.lvlm.attention.decomposed import text_prefixes
from workbench.lvlm.kernels import KERNELS, Branch, Prefix, Scores
from workbench.lvlm.kernels.fused import Backend, Fused, Saved, backward_to, forward_to, wide
from workbench.lvlm.layout import Layout
from workbench.lvlm.marks import part
from workbench.lvlm.models import Resolved
from workbench.lvlm.parts import LayerParts
from workbench.lvlm.place import Place
from workbench.lvlm.sharing import groups, shard
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.errors import RequestError, Unsupported

KEYS, GRADIENTS = 0, 1
"""Tags of messages between two ranks: both kinds may be under way at once."""


class Link:
    """The ranks of one ring, on shapes alone: what a prediction is made with."""

    def __init__(self, number: int, count: int) -> None:
        self.number, self.count = number, count

    def send_on(self, tensor: Tensor, tag: int) -> "Arriving":
        """Send a tensor to the next rank; another of its shape comes from the one before."""
        return Arriving(torch.empty_like(tensor), [])

    def gather(self, tensor: Tensor) -> Tensor:
        """That tensor of every rank: [...] -> [N, ...]."""
        return tensor.new_empty((self.count, *tensor.shape))

    def add_up(self, tensor: Tensor) -> None:
        """The sum over all ranks, in place."""


@dataclass
class Arriving:
    """A tensor that is on its way here."""

    tensor: Tensor
    works: list[Any]

    def wait(self) -> Tensor:
        """The tensor, once it is here and what was sent has left."""
        for work in self.works:
            work.wait()
        return self.tensor


class GroupLink(Link):
    """The same between processes: gloo on the CPU, NCCL between cards."""

    def __init__(self, group: Any) -> None:
        ranks = dist.get_process_group_ranks(group)
        super().__init__(dist.get_rank(group), len(ranks))
        self.group = group
        self.next = ranks[(self.number + 1) % self.count]
        self.before = ranks[(self.number - 1) % self.count]

    def send_on(self, tensor: Tensor, tag: int) -> Arriving:
        coming = torch.empty_like(tensor)
        send = dist.P2POp(dist.isend, tensor, self.next, self.group, tag)
        receive = dist.P2POp(dist.irecv, coming, self.before, self.group, tag)
        return Arriving(coming, dist.batch_isend_irecv([send, receive]))

    def gather(self, tensor: Tensor) -> Tensor:
        found = super().gather(tensor)
        dist.all_gather_into_tensor(found.flatten(0, 1), tensor, group=self.group)
        return found

    def add_up(self, tensor: Tensor) -> None:
        dist.all_reduce(tensor, group=self.group)


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
    found: list[Block | None] = [Block(ALL, ALL, causal=True)]
    half = rows // 2
    for step in range(1, count):
        if number >= step:  # These keys come from a rank before this one.
            found.append(Block(ALL, slice(0, half) if zigzag else ALL))
        else:
            found.append(Block(slice(half, rows), ALL) if zigzag else None)
    return found


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
        held = torch.stack((k, v))
        saved: list[Saved | None] = []
        merged, lse = None, None
        for step, block in enumerate(blocks):
            last = step + 1 == link.count
            coming = None if last else link.send_on(held, KEYS)
            if block is None:
                saved.append(None)
            else:
                keys, values = held[:, :, :, block.keys]
                with part("attention"):
                    out, seen, extra = backend.forward(
                        cut(q, block.rows), keys, values, block.causal, scale
                    )
                saved.append(extra)
                if merged is None or lse is None:
                    # Clones: the kernel's own may be views of what it saved.
                    merged, lse = wide(out), seen.clone()
                else:
                    with part("merge"):
                        merge_rows(merged, lse, block.rows, out, seen)
                del out, seen
            if coming is not None:
                held = coming.wait()
        assert merged is not None, "the first step is of own rows"
        out = merged.to(q.dtype)
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.call = (backend, link, blocks, scale, saved)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        q, k, v, out, lse = ctx.saved_tensors
        backend, link, blocks, scale, saved = ctx.call
        held = torch.stack((k, v))
        dtype = wide(q[:0]).dtype
        d_q = torch.zeros_like(q, dtype=dtype)
        d_held = torch.zeros_like(held, dtype=dtype)
        arriving: Arriving | None = None
        for step, (block, extra) in enumerate(zip(blocks, saved, strict=True)):
            last = step + 1 == link.count
            coming = None if last else link.send_on(held, KEYS)
            found = None
            if block is not None:
                keys, values = held[:, :, :, block.keys]
                with part("attention"):
                    found = backend.backward(
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
            if found is not None:
                d_q[:, :, block.rows] += found[0]
                d_held[0][:, :, block.keys] += found[1]
                d_held[1][:, :, block.keys] += found[2]
                del found
            arriving = link.send_on(d_held, GRADIENTS)
            if coming is not None:
                held = coming.wait()
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
            with part(names[1]):
                out, lse, extra = forward_to(backend, p, q, k, v, scale)
            pieces.append(out)
            lses.append(lse)
            saved.append(extra)
        with part("merge"):
            seen, seen_lse = over_ranks(link, torch.cat(pieces, 2), torch.cat(lses, 2))
        del pieces, lses
        own_saved = None
        if own:
            with part(names[0]):
                out, lse, own_saved = backend.forward(own[0], own[1], own[2], causal, scale)
            merged, lse = wide(out), lse.clone()
        else:
            merged = torch.zeros_like(q, dtype=seen.dtype)
            lse = q.new_full(q.shape[:3], -torch.inf, dtype=seen_lse.dtype)
        with part("merge"):
            first = 0
            for p in prefixes:
                stop = first + p.stop - p.start
                mine = slice(first, stop)
                merge_rows(
                    merged, lse, slice(p.start, p.stop), seen[:, :, mine], seen_lse[:, :, mine]
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
        with part(names[1]):
            whole = grad * link.count
            for p, extra in zip(prefixes, saved, strict=True):
                found = backward_to(backend, p, whole, q, k, v, out, lse, extra, scale)
                d_q[:, :, p.start : p.stop] = found[0]
                d_k[:, :, : p.length] += found[1]
                d_v[:, :, : p.length] += found[2]
                del found
            del whole
            link.add_up(d_q)
            d_q /= link.count
        d_own: tuple[Any, ...] = ()
        if own:
            with part(names[0]):
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
    found = copy(kernel)

    def across(
        other: Branch, own: Branch | None, prefixes: Sequence[Prefix], scores: Scores
    ) -> Tensor:
        return _Gathered.apply(
            kernel.backend(other.q),
            link,
            tuple(prefixes),
            scores.causal,
            scores.scale,
            ("" if own is None else own.part, other.part),
            other.q,
            other.k,
            other.v,
            *(() if own is None else (own.q, own.k, own.v)),
        )

    found.across = across
    return found


def link_of(cell: Cell, number: int, traced: bool) -> Link:
    """The ring of a cell, seen from one of its ranks."""
    if traced:
        return Link(number, cell.ring)
    return GroupLink(groups(cell.ulysses, cell.ring)[1])


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


def check_ring(cell: Cell, model: Resolved) -> None:
    """Raise RequestError where no model could share its rows so, Unsupported where this cannot."""
    count, system = cell.ring, SYSTEMS[cell.attention]
    if count == 1:
        return
    said = f"ring {count}: "
    if not system.ring:
        able = ", ".join(name for name in sorted(SYSTEMS) if SYSTEMS[name].ring)
        raise RequestError(
            f"{said}{cell.attention} does not share a sequence by rows; use one of {able}"
        )
    if cell.scope != "decoder" or cell.pass_ != "train":
        raise RequestError(
            f"{said}shares the sequence of a train pass at scope decoder, not pass {cell.pass_} "
            f"at scope {cell.scope}"
        )
    if cell.lora is not None:
        raise RequestError(f"{said}trains a model whole, without lora")
    if cell.compile:
        raise RequestError(f"{said}its exchange between ranks is not compiled; leave out compile")
    if not isinstance(KERNELS[cell.kernel], Fused):
        able = ", ".join(name for name in sorted(KERNELS) if isinstance(KERNELS[name], Fused))
        raise RequestError(
            f"{said}kernel {cell.kernel} returns no log-sum-exp to merge by; use one of {able}"
        )
    rows = cell.num_visual + cell.num_text
    if system.ring == "text":
        _check_visual(cell)
    elif rows % (2 * cell.sharing):
        unit, named = 2 * cell.sharing, "2·ring" if cell.ulysses == 1 else "2·ulysses·ring"
        raise RequestError(
            f"{said}{rows} tokens are no multiple of {named} = {unit}; give "
            f"{rows // unit * unit} or {(rows // unit + 1) * unit} in all"
        )
    window = narrowest_window(model)
    if window is not None and window < rows:
        raise Unsupported(
            f"{said}{cell.attention} on {cell.model}: its sliding window of {window:,} hides some "
            f"of {rows:,} tokens, and a ring has no windows"
        )
    if getattr(model.config, "attn_logit_softcapping", None) is not None:
        raise Unsupported(
            f"{said}{cell.attention} on {cell.model}: no fused kernel has its soft-cap of scores"
        )


def _check_visual(cell: Cell) -> None:
    """Of a system that shares visual tokens alone."""
    said = f"ring {cell.ring}: {cell.attention} shares its visual tokens, "
    if cell.ulysses > 1:
        raise RequestError(f"{said}which ulysses {cell.ulysses} does not; use ring alone")
    if cell.ring_order != "zigzag":
        raise RequestError(f"{said}to whose order its text is blind; leave out ring_order")
    if cell.loss_rows == "all":
        raise RequestError(f"{said}and its loss is of the text, which every rank has; use text")
    smallest = min((s.length for s in Layout.of(cell).visual_segments), default=0)
    if smallest < cell.ring:
        raise RequestError(
            f"{said}of which every rank needs one in each segment of the layout; one has "
            f"{smallest}"
        )
    assert {text_rows(shard(cell, r)) for r in range(cell.ring)} == {text_rows(shard(cell, 0))}


def text_rows(layout: Layout) -> tuple[tuple[int, int], ...]:
    """The text rows that see visual tokens."""
    return tuple((p.start, p.stop) for p in text_prefixes(layout))


def narrowest_window(model: Resolved) -> int | None:
    """The sliding window of a model's layers; None where none has one."""
    config = model.config
    kinds = {model.layer_type(i) for i in range(config.num_hidden_layers)}
    window = getattr(config, "sliding_window", None)
    # A model of one kind of layer has its window in all of them, or none.
    return window if len(kinds) == 1 or "sliding_attention" in kinds else None
