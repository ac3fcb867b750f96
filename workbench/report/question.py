"""What a report can be asked: which rows matter, and the answer in three sentences."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd

from workbench.telling.material import Material, Subject
from workbench.telling.page import Figure, Section, Table
from workbench.vocabulary.registry import Registry

Answer = tuple[str, str, str]


def _all(frame: pd.DataFrame) -> pd.DataFrame:
    return frame


class Front(NamedTuple):
    """What the first page shows: systems of one subject at one place, and their table."""

    subject: Subject
    source: str
    device: str
    names: Sequence[str]
    """The series of the figure."""
    table: Table
    metrics: tuple[str, ...] = ("time_s", "peak_bytes")
    """The panels of the figure."""
    figure: Figure | None = None
    """In place of panels over |V|."""


def _none(material: Material) -> tuple[Section, ...]:
    return ()


@dataclass(frozen=True)
class Question:
    """One question; its name is the one in ``QUESTIONS``."""

    title: str
    fill: str
    """The probe whose cells answer it."""
    answer: Callable[[Material], Answer]
    """Three sentences from the data; where data is missing, the sentence says what."""
    headline: Callable[[Material], Table | None]
    keep: Callable[[pd.DataFrame], pd.DataFrame] = _all
    """The rows that matter; none is NothingToReport."""
    front: Callable[[Material], Front | None] | None = None
    """What the answer is of. Without one the first page is that of S-Attn beside another system,
    as where a store has nothing that it could be of.
    """
    chapters: Callable[[Material], tuple[Section, ...]] = _none
    """Chapters of its own, before those of the subjects."""
    two_stores: bool = False
    """Whether it compares the store with an earlier one."""


QUESTIONS: Registry[Question] = Registry("question", "workbench.report.questions")
