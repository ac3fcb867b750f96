"""What measurements say beside a predicted threshold: of this very cell, and of its kind."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench.vocabulary.cell import Cell
    from workbench.vocabulary.thresholds import Errors, KnownThreshold


@dataclass(frozen=True)
class Known:
    """A threshold that was measured of this very cell, and how far those of its kind are off."""

    kind: str
    device: str
    reference: "KnownThreshold | None"
    """The threshold in the reference campaigns that come with the workbench."""
    errors: "Errors | None"
    stored: str | None
    """What the store has of this cell, in a sentence; None without a store, or for nothing."""
    asked: Path | None
    """The store that was asked."""

    @property
    def error(self) -> str:
        """How far predicted thresholds of this kind are off, in words."""
        if self.errors is not None:
            return self.errors.words
        return (
            f"measured error: unknown, no threshold of {self.kind} was measured on {self.device}"
        )

    def lines(self) -> Iterator[str]:
        """What was measured of this very cell, for people."""
        if self.stored is not None:
            yield self.stored
        elif self.asked is not None:
            yield f"{self.asked}: holds no measured threshold of this cell"
        if self.reference is not None:
            yield f"Measured: {self.reference.words} (the reference campaign)"

    def document(self) -> dict[str, Any]:
        """Fields of the JSON document."""
        threshold = self.reference
        return {
            "measured": None
            if threshold is None
            else {
                "max_visual": threshold.max_visual,
                "fails_at": threshold.fails_at,
                "emulate": threshold.emulate,
            },
            "measured_error": None if self.errors is None else self.errors._asdict(),
            "stored": self.stored,
        }


def known_of(cell: "Cell", device: str, store: Path | None) -> Known:
    """What is known of a cell's threshold on a device entry, also in ``store`` if one is given."""
    from workbench.vocabulary.thresholds import errors_of, threshold_of

    record = None if store is None else _stored(cell, device, store)
    kind = f"{cell.scope} {cell.pass_}"
    return Known(kind, device, threshold_of(cell, device), errors_of(cell, device), record, store)


def _stored(cell: "Cell", device: str, path: Path) -> str | None:
    """The sentence of the store's threshold; None where it has none, or does not know the card."""
    from workbench.store import Store
    from workbench.telling.measured_threshold import measured_threshold
    from workbench.telling.view import newest_of_each, prepared
    from workbench.vocabulary.devices import DEVICES

    with Store.open(path) as opened_store:
        frame = opened_store.frame()
    if frame.empty or device not in DEVICES:
        return None
    return measured_threshold(newest_of_each(prepared(frame)), cell, device)
