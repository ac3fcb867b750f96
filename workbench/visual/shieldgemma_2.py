"""ShieldGemma 2: Gemma 3's 256 tokens an image, which its processor never cuts into crops."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from workbench.visual import VISIONS, FrontEnd
from workbench.visual.gemma_3 import Gemma3


@dataclass(frozen=True)
class ShieldGemma2(Gemma3):
    """Its processor turns pan and scan off, also where a request has it on."""

    source: ClassVar[str] = "ShieldGemma2Config and ShieldGemma2Processor in transformers"
    models: ClassVar[tuple[str, ...]] = ("shieldgemma-2-",)

    def serves(self, config: Mapping[str, Any]) -> bool:
        return config.get("model_type") == "shieldgemma2" and isinstance(
            config.get("vision_config"), Mapping
        )

    def changes(self, limit: str, value: int) -> dict[str, Any] | None:
        return FrontEnd.changes(self, limit, value)


VISIONS.add("shieldgemma-2", ShieldGemma2())
