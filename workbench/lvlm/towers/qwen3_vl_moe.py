"""The tower of Qwen3-VL with experts: Qwen3-VL's own, under other names in transformers."""

from typing import ClassVar

from workbench.lvlm.towers import TOWERS, Serves
from workbench.lvlm.towers.qwen3_vl import Qwen3VL


class Qwen3VLMoe(Qwen3VL):
    """The decoder has experts, the tower has none."""

    serves: ClassVar[Serves] = {"qwen3_vl_moe": ("qwen3_vl_moe_vision",)}
    config_class = "Qwen3VLMoeVisionConfig"
    model_class = "Qwen3VLMoeVisionModel"


TOWERS.add("qwen3_vl_moe", Qwen3VLMoe)
