"""Frozen weights of the decoder's layers in 4 or 8 bits, widened for each use (``weights_dtype``).

``int4`` is bitsandbytes' NF4 with double quantisation: codes of 4 bits, a scale of 8 bits for each
64 of them, a float32 for each 256 scales (arXiv 2305.14314). ``int8`` and ``fp8`` (e4m3) are
codes of 8 bits and a float32 a row: its largest value over the code's. A use makes a copy of the
matrix in the data type that it meets: in a forward, and once more in a backward, which needs no
gradient of it. On a device ``int4`` runs bitsandbytes' own layers, the others run ``Packed``; a
prediction is traced over ``Packed``, which makes the same tensors.
"""

from math import ceil
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workbench.lvlm.parts.marks import unmasked
from workbench.lvlm.weights.linears import decoder_linears, replace_module
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from workbench.lvlm.workload import Workload

BLOCK, GROUP = 64, 256
BYTES: dict[str, tuple[torch.dtype, float]] = {
    "int8": (torch.int8, 127.0),
    "fp8": (torch.float8_e4m3fn, 448.0),
}
"""Type and largest code of the schemes of 8 bits."""
INSTALL = "pip install 'visual-token-workbench[quantize]'"


class Packed(nn.Module):
    """A frozen linear layer as codes and scales.

    Of ``int4`` it is for tracing alone: its values mean nothing.
    """

    def __init__(self, base: nn.Linear, scheme: str, device: torch.device) -> None:
        """``device`` is where codes and scales lie: those of ``base``, unless that is meta."""
        super().__init__()
        self.out_features, self.in_features = base.weight.shape
        self.scheme, self.bias = scheme, base.bias
        self.numel = base.weight.numel()
        own = self.tensors()
        for name, (count, dtype) in own.items():
            self.register_buffer(name, torch.empty(count, dtype=dtype, device=device), False)
        if scheme in BYTES and not base.weight.is_meta:
            self._fill(base.weight.detach())

    def _fill(self, weight: Tensor) -> None:
        """Take the codes and scales of a matrix [out, in]."""
        dtype, largest = BYTES[self.scheme]
        wide = weight.to(torch.float32, copy=True)
        scales = wide.abs().amax(1, keepdim=True) / largest
        scales.masked_fill_(scales == 0, 1)  # Of a row of zeros any will do.
        wide /= scales
        codes = wide if dtype.is_floating_point else wide.round_()
        self.get_buffer("codes").copy_(codes.clamp_(-largest, largest).flatten())
        own = self.get_buffer("scales").zero_()
        own[: self.out_features] = scales.flatten()

    def tensors(self) -> "dict[str, tuple[int, torch.dtype]]":
        """Elements and type of what is held."""
        if self.scheme != "int4":
            # fbgemm holds a bound beside the scales.
            scales = self.out_features + (self.scheme == "fp8")
            return {
                "codes": (self.numel, BYTES[self.scheme][0]),
                "scales": (scales, torch.float32),
            }
        blocks = ceil(self.numel / BLOCK)
        return {
            "codes": (ceil(self.numel / 2), torch.uint8),
            "scales": (blocks, torch.uint8),
            "scales_of_scales": (ceil(blocks / GROUP), torch.float32),
            "offset": (1, torch.float32),
            "table": (16, torch.float32),
            "table_of_scales": (256, torch.float32),
        }

    @property
    def nbytes(self) -> int:
        """Bytes of codes, scales and tables."""
        return sum(count * dtype.itemsize for count, dtype in self.tensors().values())

    def widened(self, dtype: torch.dtype) -> Tensor:
        """A copy [out, in] of that type."""
        shape = self.out_features, self.in_features
        codes, scales = self.get_buffer("codes"), self.get_buffer("scales")
        if self.scheme == "int4":
            scales = scales.to(torch.float32)
            scales = scales + self.get_buffer("offset")
            pairs = codes[:, None].expand(-1, 2).to(dtype)
            return pairs.view(-1)[: self.numel].view(shape)
        wide = codes.to(dtype).view(shape)
        return wide.mul_(scales[: self.out_features, None])

    def forward(self, x: Tensor) -> Tensor:
        """[…, in] -> […, out]."""
        return _Frozen.apply(x, self.bias, self)


class _Frozen(torch.autograd.Function):
    """A linear layer whose matrix is widened anew for the backward, and has no gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor | None, packed: Packed) -> Tensor:
        ctx.packed = packed
        return F.linear(x, packed.widened(x.dtype), bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (grad,) = grads
        with unmasked():  # A batched product where the gradient's rows do not follow each other.
            return torch.matmul(grad, ctx.packed.widened(grad.dtype)), None, None


def pack(workload: "Workload", scheme: str, light: bool) -> None:
    """Put the linear layers of the decoder's layers into that scheme, for good.

    ``light`` puts ``Packed`` there for ``int4`` too, in place of bitsandbytes' layers.
    """
    module = workload.module
    for name, base in decoder_linears(module).items():
        assert isinstance(base, nn.Linear), "nothing is packed yet"
        own = light or scheme in BYTES
        linear = Packed(base, scheme, workload.context.device) if own else _four_bits(base)
        replace_module(module, name, linear)
    workload.context.flags += packed_flags(workload.cell)


def packed_flags(cell: Cell) -> list[str]:
    """What a reader of such a cell should know."""
    if cell.weights_dtype is None:
        return []
    origin = (
        "NF4 with double quantisation; each use widens a matrix first, which bitsandbytes' own "
        "kernels for few rows (up to 1,536 on CUDA) do not"
        if cell.weights_dtype == "int4"
        else "codes of 8 bits and a float32 a row, in a layer of this workbench's own; each use "
        "widens a matrix first"
    )
    return [f"weights_dtype {cell.weights_dtype}: the matrices of the decoder's layers; {origin}"]


def _four_bits(base: nn.Linear) -> nn.Module:
    try:
        from bitsandbytes.nn import Linear4bit, Params4bit
    except ImportError:
        raise RequestError(
            f"weights_dtype int4: measuring needs bitsandbytes: {INSTALL}"
        ) from None
    weight, dtype = base.weight, base.weight.dtype
    rows, columns = weight.shape
    settings: dict[str, Any] = {"quant_type": "nf4", "compress_statistics": True}
    linear = Linear4bit(columns, rows, bias=False, compute_dtype=dtype, device="meta", **settings)
    linear.weight = Params4bit(weight.detach(), requires_grad=False, **settings)
    linear.bias = base.bias
    return linear.to(weight.device)
