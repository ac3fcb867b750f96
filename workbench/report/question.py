"""What a report can be asked: which rows matter, and the answer in three sentences."""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from workbench.telling.material import Material
from workbench.telling.page import Section, Table
from workbench.vocabulary.registry import Registry

Answer = tuple[str, str, str]


def _all(frame: pd.DataFrame) -> pd.DataFrame:
    return frame


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
    chapters: Callable[[Material], tuple[Section, ...]] = _none
    """Chapters of its own, before those of the subjects."""
    two_stores: bool = False
    """Whether it compares the store with an earlier one."""


QUESTIONS: Registry[Question] = Registry("question", "workbench.report.questions")
