"""Place: one layer as the decoder runs it.

Most systems run every layer of a model once, all alike. Others insert layers, give layers roles
of their own, or let tokens leave between them: what a layer does is said by its place.
"""

from dataclasses import dataclass

from workbench.lvlm.layout import Layout


@dataclass(frozen=True)
class Place:
    """A layer in the order in which the decoder runs it."""

    index: int
    """Of the model's own layer that runs here, or whose kind an inserted one copies."""
    layout: Layout
    """The tokens that its attention and its MLP run on."""
    role: str = ""
    """The attention system's word for what it does here."""
    inserted: bool = False
    """Whether it is a layer of the system's, beside the model's own."""
    keys_only: bool = False
    """Whether its visual rows are keys and values and nothing else (``skip_last``)."""

    stacked: bool = False
    """Whether features of the tower are added to its visual rows after it (deepstack)."""

    beside: Layout | None = None
    """Visual embeddings that pass beside the sequence, where that holds others made of them."""

    @property
    def originals(self) -> Layout:
        """The layout of the visual embeddings that enter the decoder."""
        return self.layout if self.beside is None else self.beside

    @property
    def kind(self) -> tuple[object, ...]:
        """Everything but the index: what places must share to cost the same on like layers."""
        return (self.layout, self.role, self.inserted, self.keys_only, self.stacked, self.beside)
