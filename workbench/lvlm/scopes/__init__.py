"""What a cell spans: one layer, the decoder, the whole vision-language model. One file each."""

from collections.abc import Callable

from workbench.lvlm.attention import System
from workbench.lvlm.context import Context
from workbench.lvlm.workload import Workload
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.registry import Registry

Builder = Callable[[Cell, System, Context], Workload]
SCOPES: Registry[Builder] = Registry("scope", "workbench.lvlm.scopes")
VISUAL_UNITS: dict[str, Callable[[Cell], int]] = {}
"""Scopes in which |V| comes in wholes, such as images: it is a multiple of this."""
