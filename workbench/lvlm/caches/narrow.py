"""Keys and values held in fewer bits than they are computed in (a cell's ``cache_dtype``).

``bfloat16`` has no scales. ``fp8`` is e4m3 under one float32 scale of keys and one of values a
layer, which is 1 as where nobody calibrated it. ``int8`` has a float32 a token and head. A decode
step widens a layer's cache into the tensor that its attention reads: one operator, which reads the
codes and writes them wide beside the new token. Attention in a prefill reads what was computed.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.library import Library

from workbench.lvlm.layout import without_first
from workbench.vocabulary.cell import Cell

CODES = {"bfloat16": torch.bfloat16, "fp8": torch.float8_e4m3fn, "int8": torch.int8}
FLOAT = 4
LARGEST = 127
"""The largest code of 8 bits."""

_LIBRARY = Library("workbench", "FRAGMENT")
_LIBRARY.define("widen_cache(Tensor codes, Tensor scales, Tensor token) -> Tensor")


class Narrow(NamedTuple):
    """Keys or values [B, G, n, K] as codes, and their scales [B, G, n, 1], [1] or [0]."""

    codes: Tensor
    scales: Tensor

    @classmethod
    def of(cls, x: Tensor, scheme: str) -> "Narrow":
        """``x`` in fewer bits."""
        if scheme == "int8":
            scales = x.abs().amax(-1, keepdim=True).div_(LARGEST).clamp_(min=1e-12)
            return cls((x / scales).round_().to(torch.int8), scales.float())
        scales = x.new_ones(1 if scheme == "fp8" else 0, dtype=torch.float32)
        return cls(x.to(CODES[scheme]), scales)

    def without_first(self, count: int) -> "Narrow":
        """The codes of all tokens but the first ``count``."""
        scales = without_first(self.scales, count) if self.scales.ndim == 4 else self.scales
        return Narrow(without_first(self.codes, count), scales)

    def widened(self, token: Tensor) -> Tensor:
        """The cache and one token [B, G, 1, K] more, as wide as the token: [B, G, n + 1, K]."""
        widened: Tensor = torch.ops.workbench.widen_cache(self.codes, self.scales, token)
        return widened


def _shapes(codes: Tensor, scales: Tensor, token: Tensor) -> Tensor:
    batch, groups, tokens, size = codes.shape
    return token.new_empty(batch, groups, tokens + 1, size)


def _widen(codes: Tensor, scales: Tensor, token: Tensor) -> Tensor:
    out = _shapes(codes, scales, token)
    rows = out[:, :, : codes.shape[2]]
    if codes.dtype != torch.int8:
        rows.copy_(codes)  # A scale of 1 needs no product.
    elif codes.is_cuda:
        torch.mul(codes, scales, out=rows)
    else:  # The CPU would widen the codes first.
        rows.copy_(codes).mul_(scales.to(out.dtype))
    out[:, :, codes.shape[2] :] = token
    return out


_LIBRARY.impl("widen_cache", _shapes, "Meta")
_LIBRARY.impl("widen_cache", _widen, "CPU")
_LIBRARY.impl("widen_cache", _widen, "CUDA")


def cache_bytes(cell: Cell, elements: int, rows: int, item: int) -> int:
    """Bytes of one layer's keys and values, of so many elements in so many rows: a row is the key
    or the value of a head of a token.

    ``item`` is the size of an element where the cell names no type of its own.
    """
    scheme = cell.cache_dtype
    if scheme is None:
        return elements * item
    scales = {"int8": rows, "fp8": 2}.get(scheme, 0)
    return elements * CODES[scheme].itemsize + FLOAT * scales


def cache_flags(cell: Cell) -> list[str]:
    """What a reader of such a cell should know."""
    if cell.cache_dtype is None:
        return []
    layers = {
        "bfloat16": "no scales",
        "fp8": "e4m3, a scale of 1 for the keys and the values of each layer",
        "int8": "a float32 scale for each token and head",
    }[cell.cache_dtype]
    note = "; a step widens a layer's cache for its attention, where other kernels read codes"
    return [f"cache_dtype {cell.cache_dtype}: {layers}{note if cell.pass_ == 'decode' else ''}"]
