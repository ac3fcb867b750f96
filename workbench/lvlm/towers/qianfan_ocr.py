"""Qianfan-OCR's tower and projector: InternVL3's, whose layers are left out by chance in training.

A layer's attention and MLP are each dropped with a probability that grows with depth, up to
drop_path_rate (stochastic depth): they run all the same. Under `--checkpoint` what runs again is
drawn anew.
"""

from typing import Any, ClassVar

from torch import nn

from workbench.lvlm.towers import TOWERS, Grid, Serves, Tower
from workbench.lvlm.towers.internvl import InternVL


class QianfanOcr(InternVL):
    """A tile or a thumbnail is an image of its own to the tower; so are those of a frame."""

    kind = "qianfan_ocr_vision"
    serves: ClassVar[Serves] = {"qianfan_ocr": (kind,)}
    front_end = "qianfan-ocr"

    def vision_class(self) -> Any:
        from transformers.models.qianfan_ocr.modeling_qianfan_ocr import QianfanOCRVisionModel

        return QianfanOCRVisionModel

    def projector_class(self) -> Any:
        from transformers.models.qianfan_ocr import modeling_qianfan_ocr as module

        return module.QianfanOCRMultiModalProjector

    @staticmethod
    def layers(tower: Any) -> nn.ModuleList:
        found: nn.ModuleList = tower.layers
        return found

    def of_video(
        self, width: int, height: int, num_frames: int, fps: float
    ) -> tuple[tuple[Grid, ...], ...]:
        return Tower.of_video(self, width, height, num_frames, fps)

    def processor(self, frames: bool = False) -> Any:
        return super().processor()


TOWERS.add("qianfan_ocr", QianfanOcr)
