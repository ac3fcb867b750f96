"""EXAONE 4.5's own tower: Qwen2.5-VL's, with fewer heads of keys and values than of queries.

Its decoder counts tokens: positions are indices, whatever the rows and columns of an image.
"""

from typing import Any, ClassVar

from torch import Tensor

from workbench.lvlm.layout import Layout
from workbench.lvlm.towers import TOWERS, Grid, Serves
from workbench.lvlm.towers.frames import GroupedAttention
from workbench.lvlm.towers.qwen2_5_vl import Qwen25VL


class FewerKeys(GroupedAttention):
    """One matrix for queries, and for keys and values of fewer heads."""

    def _projected(self, hidden: Tensor) -> tuple[Tensor, ...]:
        inner: Any = self.inner
        parts = inner.qkv(hidden).split([inner.q_dim, inner.kv_dim, inner.kv_dim], 1)
        return tuple(x.unflatten(1, (-1, inner.head_dim)) for x in parts)


class Exaone45(Qwen25VL):
    """Images of any size in whole tokens of 28 × 28 pixels; video in steps of two frames."""

    serves: ClassVar[Serves] = {"exaone4_5": ("exaone4_5_vision",)}
    front_end = "exaone-4.5"
    has_positions = False
    attention = FewerKeys
    package = "exaone4_5"
    config_class = "Exaone4_5_VisionConfig"
    model_class = "Exaone4_5_VisionModel"

    def attention_weights(self) -> int:
        config: Any = self.config
        keys = self.width // config.num_heads * config.num_key_value_heads
        return 2 * self.width * (self.width + keys)

    def positions(self, layout: Layout, grids: tuple[Grid, ...]) -> Tensor | None:
        return None


TOWERS.add("exaone4_5", Exaone45)
