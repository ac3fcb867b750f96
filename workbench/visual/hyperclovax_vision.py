"""HyperCLOVA X's images and video: Qwen2.5-VL's processors."""

from dataclasses import dataclass
from typing import ClassVar

from workbench.visual import VISIONS
from workbench.visual.qwen2_5_vl import Qwen25VL


@dataclass(frozen=True)
class HyperClovaX(Qwen25VL):
    """The limits are those of Qwen2.5-VL where no file beside a checkpoint says others."""

    source: ClassVar[str] = (
        "HyperCLOVAXVisionV2Processor in transformers, around Qwen2-VL's processors; limits are"
        " Qwen2.5-VL's"
    )
    models: ClassVar[tuple[str, ...]] = ()
    model_type: ClassVar[str] = "hyperclovax_vision_v2"


VISIONS.add("hyperclovax-vision", HyperClovaX())
