"""The tower of GLM-4.6V: GLM-4.1V's own, which samples other frames of a video."""

from typing import ClassVar

from workbench.lvlm.towers import TOWERS, Serves
from workbench.lvlm.towers.glm4v import KIND, Glm4v


class Glm46v(Glm4v):
    """The front end alone differs."""

    serves: ClassVar[Serves] = {"glm46v": (KIND, "glm4v", "glm46v")}
    front_end = "glm-4.6v"


TOWERS.add("glm46v", Glm46v)
