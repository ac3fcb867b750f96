"""The aspects of a store's results, one a file: each is a chapter of the report and a page.

A file here adds an ``Aspect``; the report and the dashboard take it up without an edit. An aspect
with more controls than a place to choose has a page of its name in ``dashboard/pages/``.
"""

from collections.abc import Callable
from dataclasses import dataclass

from workbench.telling.material import Material, Subject
from workbench.telling.page import Block
from workbench.vocabulary.registry import Registry


@dataclass(frozen=True)
class Aspect:
    """One side of what the cells of a subject (model, scope, pass) show."""

    order: int
    """Its place among the chapters and the pages; two have never the same."""
    page: str
    """What the dashboard's navigation calls it."""
    question: str
    """The heading of its page."""
    icon: str
    """A name of Material's symbols."""
    block: Callable[[Material, Subject], Block]
    """Sentences, figure and tables; sentences alone say what is missing."""


ASPECTS: Registry[Aspect] = Registry("aspect", "workbench.aspects")


def in_order() -> list[tuple[str, Aspect]]:
    """Every aspect with its name, as the report and the dashboard show them."""
    return sorted(ASPECTS.items(), key=lambda item: item[1].order)


__all__ = ["ASPECTS", "Aspect", "Block", "Material", "Subject", "in_order"]
