"""``flash_attention_2`` and ``_3``: the packages of their authors, through transformers.

They serve S-Attn. Their public functions return no log-sum-exp that can be differentiated, so the
branches of other systems run on ``flash``, which is the same algorithm in torch.
"""

from importlib.util import find_spec
from typing import Any

from torch import Tensor

from workbench.errors import Unsupported
from workbench.lvlm.kernels import KERNELS, Kernel
from workbench.lvlm.kernels.modelled import SHAPES, register, sentence
from workbench.lvlm.parts import LayerParts


class FlashAttentionPackage(Kernel):
    """A kernel of a package of its own; causality and windows are arguments, never a mask."""

    def __init__(self, name: str, package: str, distribution: str) -> None:
        self.name = self.hf = name
        self.package, self.distribution = package, distribution

    def implementation(self, traced: bool) -> str:
        if not traced:
            return self.hf
        register()
        return SHAPES

    def traced_as(self) -> str | None:
        return sentence(self.name)

    def mask(self, tokens: int, window: int | None, like: Tensor) -> Any:
        return None

    def refuse(self, parts: LayerParts, decomposed: bool, window_bites: bool) -> None:
        if decomposed:
            raise Unsupported(
                f"kernel {self.name!r} serves s_attn only: its package returns no log-sum-exp "
                "that can be differentiated; use flash"
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
    "flash_attention_2", FlashAttentionPackage("flash_attention_2", "flash_attn", "flash-attn")
)
KERNELS.add(
    "flash_attention_3",
    FlashAttentionPackage("flash_attention_3", "flash_attn_interface", "flash-attn-3"),
)
