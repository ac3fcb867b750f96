"""``flash_attention_2`` and ``_3``: the packages of their authors, through transformers.

They serve S-Attn. Their public functions return no log-sum-exp that can be differentiated, so the
branches of other systems run on ``flash``, which is the same algorithm in torch.
"""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from torch import Tensor

from workbench.lvlm.kernels import HALVES, KERNELS, Band, Kernel
from workbench.lvlm.kernels.modelled import SHAPES, register, sentence
from workbench.lvlm.kernels.scratch import FLOAT, TILE, repeated_gradients, rounded
from workbench.lvlm.layout import Chunk
from workbench.lvlm.parts import LayerParts
from workbench.vocabulary.errors import Unsupported

Temporaries = Callable[[Tensor, Tensor], tuple[int, ...]]
HEAD_SIZES = (64, 96, 128, 192, 256)
"""Those that FlashAttention 3 is built for (round_up_headdim)."""


def second_temporaries(q: Tensor, k: Tensor) -> tuple[int, ...]:
    """FlashAttention 2's backward (csrc/flash_attn/flash_api.cpp, mha_bwd)."""
    batch, heads, rows, size = q.shape
    each = FLOAT * batch * heads * rounded(rows, TILE)
    wide = rounded(size, 32) if size <= 192 else 256
    return (each, each * wide, *repeated_gradients(q, k))


def third_temporaries(q: Tensor, k: Tensor) -> tuple[int, ...]:
    """FlashAttention 3's (hopper/flash_api.cpp, mha_bwd), whose tiles are at most 128 rows."""
    batch, heads, rows, size = q.shape
    each = FLOAT * batch * heads * rounded(rows, TILE)
    wide = next(width for width in HEAD_SIZES if size <= width)
    keys = FLOAT * batch * k.shape[1] * rounded(k.shape[2], TILE) * wide
    return (each, each, each * wide, *((keys, keys) if heads != k.shape[1] else ()))


class FlashAttentionPackage(Kernel):
    """A kernel of a package of its own; causality and windows are arguments, never a mask."""

    takes_mask = False
    two_widths = True
    """transformers pads values to the width of queries, and cuts the output."""

    temporaries_from = (
        "backward: row sums, float32 dQ, dK and dV by head or in float32 (flash-attention, "
        "flash_api.cpp, mha_bwd)"
    )

    def __init__(self, name: str, package: str, distribution: str, backward: Temporaries) -> None:
        self.name = self.hf = name
        self.package, self.distribution, self.backward = package, distribution, backward

    def temporaries(self, grad: Tensor, q: Tensor, k: Tensor, out: Tensor) -> tuple[int, ...]:
        return self.backward(q, k)

    def implementation(self, traced: bool) -> str:
        if not traced:
            return self.hf
        register()
        return SHAPES

    def traced_as(self) -> str | None:
        return sentence(self.name)

    def skips(self, windowed: bool) -> bool:
        return True  # A window is an argument of its own (``window_size``), no mask.

    def mask(self, tokens: int, window: int | None, like: Tensor, band: Band | None = None) -> Any:
        return None

    widest = 256
    dtypes = HALVES

    def refuse(self, parts: LayerParts, decomposed: bool, window_bites: bool) -> None:
        super().refuse(parts, decomposed, window_bites)
        if window_bites and isinstance(parts.window, Chunk):
            raise Unsupported(
                f"kernel {self.name!r} has no chunks, which {parts.attention.config.model_type} "
                f"needs ({parts.window} tokens)"
            )
        if decomposed:
            raise Unsupported(
                f"kernel {self.name!r} serves s_attn only: its package returns no log-sum-exp "
                "that can be differentiated"
            )

    def require(self, parts: LayerParts, decomposed: bool, like: Tensor, train: bool) -> None:
        if find_spec(self.package) is None:
            raise Unsupported(
                f"kernel {self.name!r} needs the package {self.distribution} (module "
                f"{self.package}), which is not installed"
            )
        if like.device.type != "cuda" or like.element_size() != 2:
            raise Unsupported(
                f"kernel {self.name!r} runs on CUDA in bfloat16 or float16, not on "
                f"{like.device.type} in {like.dtype}"
            )


KERNELS.add(
    "flash_attention_2",
    FlashAttentionPackage("flash_attention_2", "flash_attn", "flash-attn", second_temporaries),
)
KERNELS.add(
    "flash_attention_3",
    FlashAttentionPackage(
        "flash_attention_3", "flash_attn_interface", "flash-attn-3", third_temporaries
    ),
)
