"""``flex``: torch's FlexAttention, the only fused kernel with soft-capping and windows.

S-Attn through transformers. The branches of other systems each return their log-sum-exp and are
merged in plain torch: autograd goes through it. torch has no backward for this kernel on a CPU.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import (
    AuxRequest,
    BlockMask,
    FlexKernelOptions,
    flex_attention,
)

from workbench.lvlm.kernels import KERNELS, Band, Branch, Kernel, Prefix, Scores
from workbench.lvlm.kernels.eager import by_rows, wide
from workbench.lvlm.kernels.modelled import SHAPES, register, sentence, tracing
from workbench.lvlm.kernels.scratch import FLOAT
from workbench.lvlm.kernels.sdpa import FlashCpu
from workbench.lvlm.layout import Chunk
from workbench.lvlm.parts import LayerParts
from workbench.lvlm.parts.marks import region
from workbench.vocabulary.errors import Unsupported

BLOCK = 128
"""Rows and columns of a block of the mask: torch's default."""
GENERAL: FlexKernelOptions = {"FORCE_USE_FLEX_ATTENTION": True}
"""The kernel for any number of rows, where torch would take that of decoding."""

MaskMod = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


class Flex(Kernel):
    """Hidden blocks are skipped; blocks on an edge of the mask are computed and masked."""

    name = "flex"
    hf = "flex_attention"
    under_dispatch = False  # A higher-order operator: torch 2.11 has no rule for it there.
    temporaries_from = "backward: float32 row sums (torch inductor)"

    def implementation(self, traced: bool) -> str:
        if not traced:
            return self.hf
        register()
        return SHAPES

    def traced_as(self) -> str | None:
        return sentence(self.name)

    def skips(self, windowed: bool) -> bool:
        return True  # By blocks, from the mask's own function.

    def temporaries(self, grad: Tensor, q: Tensor, k: Tensor, out: Tensor) -> tuple[int, ...]:
        # torch/_inductor/kernel/flex/flex_attention.py: delta, the row sums of grad and output.
        return (FLOAT * grad.shape[:3].numel(),)

    def mask(self, tokens: int, window: int | None, like: Tensor, band: Band | None = None) -> Any:
        places = torch.arange(tokens, device=like.device)
        if band is None:
            return block_mask(places, places, window, causal_mod(window))
        return block_mask(places, places, window, banded_mod(window, band), band)

    def require(self, parts: LayerParts, decomposed: bool, like: Tensor, train: bool) -> None:
        if train and like.device.type == "cpu":
            raise Unsupported(
                "kernel 'flex' cannot train on a CPU: torch's FlexAttention has no backward "
                "there; use eager"
            )

    def own(self, branch: Branch, scores: Scores) -> Tensor:
        return _attend(branch, scores, _own_mask(branch, scores))[0]

    def cross(self, branch: Branch, prefixes: Sequence[Prefix], scores: Scores) -> Tensor:
        return by_rows(
            branch.q,
            prefixes,
            lambda p: _cross(branch, p, scores)[0],
            lambda start, stop: torch.zeros_like(branch.q[:, :, start:stop]),
        )

    def merged(
        self, own: Branch, other: Branch, prefixes: Sequence[Prefix], scores: Scores
    ) -> Tensor:
        with region(own.region):
            out, lse = _attend(own, scores, _own_mask(own, scores))

        def merge(p: Prefix) -> Tensor:
            with region(other.region):
                cross, seen_lse = _cross(other, p, scores)
            with region("merge"):
                rows = out[:, :, p.start : p.stop]
                alpha = torch.sigmoid(seen_lse - lse[:, :, p.start : p.stop]).unsqueeze(-1)
                mixed = torch.lerp(wide(rows), wide(cross), alpha.to(wide(rows).dtype))
                return mixed.to(rows.dtype)

        return by_rows(own.q, prefixes, merge, lambda start, stop: out[:, :, start:stop])


KERNELS.add("flex", Flex())


def causal_mod(window: int | None) -> MaskMod:
    """Which keys a row of the same tokens sees."""

    def causal(_b: Tensor, _h: Tensor, row: Tensor, column: Tensor) -> Tensor:
        return row >= column

    if window is None:
        return causal
    width = int(window)

    def near(_b: Tensor, _h: Tensor, row: Tensor, column: Tensor) -> Tensor:
        return (row >= column) & (row - column < width)

    def inside(_b: Tensor, _h: Tensor, row: Tensor, column: Tensor) -> Tensor:
        return (row >= column) & (row // width == column // width)

    return inside if isinstance(window, Chunk) else near


def banded_mod(window: int | None, band: Band) -> MaskMod:
    """The same of rows that see the first keys and the last, inside a window if there is one."""
    causal, recent, sinks = causal_mod(window), band.recent, band.sinks

    def banded(b: Tensor, h: Tensor, row: Tensor, column: Tensor) -> Tensor:
        return causal(b, h, row, column) & ((row - column < recent) | (column < sinks))

    return banded


def placed_mod(rows: Tensor, columns: Tensor, window: int) -> MaskMod:
    """Which keys a row sees by their positions in the sequence."""
    width = int(window)

    def near(_b: Tensor, _h: Tensor, row: Tensor, column: Tensor) -> Tensor:
        distance = rows[row] - columns[column]
        return (distance >= 0) & (distance < width)

    def inside(_b: Tensor, _h: Tensor, row: Tensor, column: Tensor) -> Tensor:
        at, key = rows[row], columns[column]
        return (at >= key) & (at // width == key // width)

    return inside if isinstance(window, Chunk) else near


def block_mask(
    rows: Tensor, columns: Tensor, window: int | None, mod: MaskMod, band: Band | None = None
) -> BlockMask:
    """The block mask of ``mod``, whose rows and keys stand at increasing positions [R] and [C].

    torch's own constructor evaluates every pair; here each block is decided by its corners.
    """
    first_row, last_row = _corners(rows)
    first_column, last_column = _corners(columns)
    nearest = first_row[:, None] - last_column[None, :]
    farthest = last_row[:, None] - first_column[None, :]
    some, full = farthest >= 0, nearest >= 0
    if isinstance(window, Chunk):
        chunks = (x // int(window) for x in (first_row, last_row, first_column, last_column))
        row, end, column, stop = chunks
        some = some & (row[:, None] <= stop) & (column <= end[:, None])
        full = full & (row == end)[:, None] & (row[:, None] == column) & (column == stop)
    elif window is not None:
        some, full = some & (nearest < window), full & (farthest < window)
    if band is not None:
        some &= (nearest < band.recent) | (first_column < band.sinks)
        full &= (farthest < band.recent) | (last_column < band.sinks)
    # Where the last block reaches beyond the tokens, the kernel needs the mask's own bounds.
    full = full & _whole(rows)[:, None] & _whole(columns)[None, :]
    return BlockMask.from_kv_blocks(
        *_ordered(some & ~full),
        *_ordered(full),
        BLOCK_SIZE=BLOCK,
        mask_mod=mod,
        seq_lengths=(len(rows), len(columns)),
    )


def _corners(places: Tensor) -> tuple[Tensor, Tensor]:
    starts = torch.arange(0, len(places), BLOCK, device=places.device)
    return places[starts], places[(starts + BLOCK - 1).clamp_max(len(places) - 1)]


def _whole(places: Tensor) -> Tensor:
    starts = torch.arange(0, len(places), BLOCK, device=places.device)
    return starts + BLOCK <= len(places)


def _ordered(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """How many blocks a row of blocks has, and which, theirs first: int32 [1, 1, n(, m)]."""
    order = torch.argsort(blocks.to(torch.int8), dim=-1, descending=True, stable=True)
    return blocks.sum(-1).to(torch.int32)[None, None], order.to(torch.int32)[None, None]


def _own_mask(branch: Branch, scores: Scores) -> BlockMask | None:
    if tracing(branch.q.device):
        return None
    if not scores.causal:
        return None
    if scores.window is None or scores.rows is None:
        places = torch.arange(branch.q.shape[2], device=branch.q.device)
        mod, window = causal_mod(None), None
    else:
        places, window = scores.rows, scores.window
        mod = placed_mod(places, places, window)
    return _block_mask(scores, "own", lambda: block_mask(places, places, window, mod))


def _cross(other: Branch, p: Prefix, scores: Scores) -> tuple[Tensor, Tensor]:
    """One run of rows over its prefix: output [B, H, n, K] and log-sum-exp [B, H, n]."""
    branch = Branch(
        other.q[:, :, p.start : p.stop], other.k[:, :, : p.length], other.v[:, :, : p.length]
    )
    mask, window = None, scores.window
    if tracing(other.q.device):
        window = None  # The stand-in reads no mask.
    if window is not None and scores.rows is not None and scores.other is not None:
        rows, columns = scores.rows[p.start : p.stop], scores.other[: p.length]
        mod = placed_mod(rows, columns, window)
        mask = _block_mask(scores, p, lambda: block_mask(rows, columns, window, mod))
    return _attend(branch, scores, mask, causal=False)


def _block_mask(scores: Scores, key: object, make: Callable[[], BlockMask]) -> BlockMask:
    if key not in scores.made:
        scores.made[key] = make()
    return scores.made[key]


def _attend(
    branch: Branch, scores: Scores, mask: BlockMask | None, causal: bool = True
) -> tuple[Tensor, Tensor]:
    """Output [B, H, R, K] and log-sum-exp [B, H, R] of one branch."""
    if tracing(branch.q.device):
        return _Modelled.apply(causal and scores.causal, scores.scale, *_tensors(branch))
    run = flex_attention if branch.q.device.type == "cpu" else compiled()
    out, extra = run(
        *_tensors(branch),
        score_mod=None if scores.softcap is None else softcap_mod(scores.softcap),
        block_mask=mask,
        scale=scores.scale,
        enable_gqa=branch.q.shape[1] != branch.k.shape[1],
        return_aux=AuxRequest(lse=True),
        kernel_options=kernel_options(branch.q.shape[2]),
    )
    return out, extra.lse


def kernel_options(rows: int) -> FlexKernelOptions | None:
    """What torch's choice of a kernel is told for a branch of so many query rows.

    Below 128 rows torch takes its decoding kernel (_inductor/kernel/flex/flex_decoding.py), which
    puts the rows of all query heads of a key head into one tile: from a few rows on no tile fits
    the card's shared memory, and compiling ends in NoValidChoicesError. One row is what that
    kernel is made for.
    """
    return GENERAL if 1 < rows < BLOCK else None


@cache
def compiled() -> Any:
    """flex_attention compiled: without it, torch materialises the scores.

    In one graph or not at all: beyond torch's limit of recompilations it raises, where otherwise
    it would go on without compiling, unsaid.
    """
    return torch.compile(flex_attention, fullgraph=True)


@cache
def softcap_mod(cap: float) -> Any:
    """Gemma 2's soft-capping; one function a value, so that it is compiled once."""

    def capped(score: Tensor, _b: Tensor, _h: Tensor, _row: Tensor, _column: Tensor) -> Tensor:
        return cap * torch.tanh(score / cap)

    return capped


def _tensors(branch: Branch) -> tuple[Tensor, Tensor, Tensor]:
    return branch.q, branch.k, branch.v


class _Modelled(torch.autograd.Function):
    """A branch of a prediction: flash attention's shapes, with a log-sum-exp in the graph."""

    @staticmethod
    def forward(
        ctx: Any, causal: bool, scale: float, q: Tensor, k: Tensor, v: Tensor
    ) -> tuple[Tensor, Tensor]:
        out, lse, _ = FlashCpu().forward(q, k, v, causal, scale)
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.call = (causal, scale)
        return out, lse

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _grad_lse: Tensor) -> tuple[Any, ...]:
        q, k, v, out, lse = ctx.saved_tensors
        causal, scale = ctx.call
        grads = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            grad, q, k, v, out, lse, 0.0, causal, scale=scale
        )
        return None, None, *grads
