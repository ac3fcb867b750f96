"""MiniCPM-OCR's tower: MiniCPM-V 4.6's, in the mode 4x unless its files say otherwise."""

from typing import ClassVar

from workbench.lvlm.towers import TOWERS, Serves
from workbench.lvlm.towers.minicpmv4_6 import MiniCPMV


class MiniCPMOcr(MiniCPMV):
    """Nothing differs but the names and the mode."""

    serves: ClassVar[Serves] = {"minicpm_ocr": ("minicpm_ocr_vision",)}
    unlisted = None
    front_end = "minicpm-ocr"


TOWERS.add("minicpm_ocr", MiniCPMOcr)
