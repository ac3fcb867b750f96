"""The tower of GLM-4.5V: GLM-4.1V's own, under other names in transformers."""

from typing import ClassVar

from workbench.lvlm.towers import TOWERS, Serves
from workbench.lvlm.towers.glm4v import Glm4v


class Glm4vMoe(Glm4v):
    """The decoder has experts, the tower has none."""

    serves: ClassVar[Serves] = {"glm4v_moe": ("glm4v_moe_vision", "glm4v_moe")}
    config_class = "Glm4vMoeVisionConfig"
    model_class = "Glm4vMoeVisionModel"


TOWERS.add("glm4v_moe", Glm4vMoe)
