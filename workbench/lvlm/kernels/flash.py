"""``flash``: FlashAttention 2 as torch ships it, on CUDA and, in its own form, on CPU."""

from torch import Tensor
from torch.nn.attention import SDPBackend

from workbench.lvlm.kernels import KERNELS
from workbench.lvlm.kernels.chosen import Chosen
from workbench.lvlm.kernels.fused import Backend
from workbench.lvlm.kernels.sdpa import FlashCpu, FlashCuda


class Flash(Chosen):
    name = "flash"
    choice = SDPBackend.FLASH_ATTENTION
    on_cpu = True

    def backend(self, like: Tensor) -> Backend:
        return FlashCpu() if like.device.type in ("cpu", "meta") else FlashCuda()


KERNELS.add("flash", Flash())
