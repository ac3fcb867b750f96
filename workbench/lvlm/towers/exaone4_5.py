"""EXAONE 4.5's own tower: Qwen2.5-VL's, with fewer heads of keys and values than of queries.

Its decoder counts tokens: positions are indices, whatever the rows and columns of an image.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from workbench.lvlm.layout import Layout
from workbench.lvlm.towers import TOWERS, Grid, Serves
from workbench.lvlm.towers.qwen2_5_vl import Qwen25VL

if TYPE_CHECKING:
    from workbench.lvlm.models import Family, Resolved


class Exaone45(Qwen25VL):
    """Images of any size in whole tokens of 28 × 28 pixels; video in steps of two frames."""

    serves: ClassVar[Serves] = {"exaone4_5": ("exaone4_5_vision",)}
    front_end = "exaone-4.5"
    has_positions = False
    config_class = "Exaone4_5_VisionConfig"
    model_class = "Exaone4_5_VisionModel"

    def home(self, model: "Resolved") -> "Family":
        return replace(model.family, package="exaone4_5")

    def attention_weights(self) -> int:
        config: Any = self.config
        keys = self.width // config.num_heads * config.num_key_value_heads
        return 2 * self.width * (self.width + keys)

    def positions(self, layout: Layout, grids: tuple[Grid, ...]) -> Tensor | None:
        return None


TOWERS.add("exaone4_5", Exaone45)
