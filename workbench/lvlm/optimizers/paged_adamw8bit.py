"""bitsandbytes' PagedAdamW8bit: AdamW8bit whose larger moments a card may push to the host.

They lie in CUDA's managed memory, which the driver moves; torch's allocator does not know it. On
the CPU bitsandbytes falls back to AdamW8bit.
"""

from typing import ClassVar

from workbench.lvlm.optimizers import OPTIMIZERS, Stepped
from workbench.lvlm.optimizers.adamw8bit import AdamW8bit

LARGE = 100_000
"""Elements from which on moments are paged (``get_state_buffer``)."""


class PagedAdamW8bit(AdamW8bit):
    name = "paged_adamw8bit"
    real: ClassVar[str] = "PagedAdamW8bit"

    def paged(self, of: Stepped) -> int:
        return 2 if of.numel >= LARGE else 0


OPTIMIZERS.add("paged_adamw8bit", PagedAdamW8bit())
