"""GLM-OCR: GLM-4.1V's layer, whose heads may be wider together than the hidden size."""

from typing import TYPE_CHECKING

from workbench.lvlm.models import FAMILIES
from workbench.lvlm.models.glm4v import glm_like
from workbench.lvlm.models.mrope import MRope

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedConfig


class GlmOcr(MRope):
    """The norms have no name of the text model's own."""

    def norm(self, config: "PreTrainedConfig") -> "nn.Module":
        return self.from_transformers("GlmOcrRMSNorm")(config.hidden_size, eps=config.rms_norm_eps)


FAMILIES.add(
    "glm_ocr",
    GlmOcr(
        "glm_ocr_text",
        "glm_ocr",
        "GlmOcrText",
        glm_like,
        config_name="GlmOcrTextConfig",
        lm_name="GlmOcrForConditionalGeneration",
    ),
)
