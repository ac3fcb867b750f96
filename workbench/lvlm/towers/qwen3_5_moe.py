"""The tower of Qwen3.5 with experts: Qwen3.5's own, under other names in transformers."""

from typing import ClassVar

from workbench.lvlm.towers import TOWERS, Serves
from workbench.lvlm.towers.qwen3_5 import Qwen35


class Qwen35Moe(Qwen35):
    """The decoder has experts, the tower has none."""

    serves: ClassVar[Serves] = {"qwen3_5_moe": ("qwen3_5_moe_vision", "qwen3_5_moe")}
    kind = "qwen3_5_moe_vision"
    config_class = "Qwen3_5MoeVisionConfig"
    model_class = "Qwen3_5MoeVisionModel"


TOWERS.add("qwen3_5_moe", Qwen35Moe)
