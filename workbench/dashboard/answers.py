"""The verdict on top of the pages that compare systems."""

from collections.abc import Sequence

import pandas as pd

from workbench.analysis.marks import together
from workbench.dashboard.controls import one
from workbench.dashboard.reading import Data
from workbench.telling.sentences import at_place, pairs_at, place, places
from workbench.telling.verdict import Verdict


def choose_place(rows: pd.DataFrame) -> tuple[str, str]:
    """The source and device to look at, as picked where there are several."""
    here = {place(*each): each for each in places(rows)}
    where = one("Where", list(here), "where") if len(here) > 1 else next(iter(here))
    return here[where]


def verdict_of(
    store: Data, rows: pd.DataFrame, source: str, device: str, system: str | None = None
) -> Verdict:
    """What the rows of one subject, with metrics, say at one place; of ``system``, if given."""
    here = at_place(rows, source, device)
    facts = here.iloc[0]
    whole = f"{facts['model']} · {facts['scope']} · {facts['pass']}, {place(source, device)}"
    return Verdict(here, pairs_at(store.pairs(rows), source, device), whole, system)


def marked(groups: Sequence[tuple[str, ...]]) -> str:
    """Marks behind a figure on a card; empty without any."""
    words = together(groups)
    return f" ({words})" if words else ""
