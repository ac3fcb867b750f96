"""``flash``: FlashAttention 2 as torch ships it, on CUDA and, in its own form, on CPU."""

from torch import Tensor
from torch.nn.attention import SDPBackend

from workbench.lvlm.kernels import HALVES, KERNELS
from workbench.lvlm.kernels.chosen import Chosen
from workbench.lvlm.kernels.fused import Backend
from workbench.lvlm.kernels.sdpa import FLASH_TEMPORARIES, FlashCpu, FlashCuda, flash_temporaries


class Flash(Chosen):
    name = "flash"
    choice = SDPBackend.FLASH_ATTENTION
    on_cpu = True
    widest = 256
    dtypes = HALVES
    temporaries_from = FLASH_TEMPORARIES

    def temporaries(self, grad: Tensor, q: Tensor, k: Tensor, out: Tensor) -> tuple[int, ...]:
        return flash_temporaries(grad, q, k, out)

    def backend(self, like: Tensor) -> Backend:
        return FlashCpu() if like.device.type in ("cpu", "meta") else FlashCuda()


KERNELS.add("flash", Flash())
