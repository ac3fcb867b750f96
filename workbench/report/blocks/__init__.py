"""What is said of each subject, one aspect a file."""

from collections.abc import Callable

from workbench.report.blocks.agreement import agreement_block
from workbench.report.blocks.memory import memory_block
from workbench.report.blocks.parts import parts_block
from workbench.report.blocks.roofline import roofline_block
from workbench.report.blocks.scaling import scaling_block
from workbench.report.blocks.seconds import seconds_block
from workbench.report.blocks.thresholds import thresholds_block
from workbench.report.material import Material, Subject
from workbench.report.page import Block

BLOCKS: tuple[Callable[[Material, Subject], Block], ...] = (
    scaling_block,
    seconds_block,
    thresholds_block,
    memory_block,
    parts_block,
    roofline_block,
    agreement_block,
)
"""In the order of the page."""

__all__ = ["BLOCKS"]
