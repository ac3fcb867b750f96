"""How a model is trained: AdamW's settings, as the D-Attn paper has them (Table 7)."""

from dataclasses import dataclass

from workbench.vocabulary.cell import Cell


@dataclass(frozen=True)
class Hyper:
    """AdamW's settings: a learning rate for each component of the model."""

    rates: dict[str, float]
    betas: tuple[float, float]
    eps: float
    weight_decay: float = 0.0

    def rate(self, component: str) -> float:
        """Of a component; a reducer, which is new as the adapter is, has the adapter's."""
        return self.rates["adapter" if component == "reducer" else component]


PRETRAINING = Hyper({"adapter": 1e-3}, (0.9, 0.999), 1e-8)
"""Stage 1: the adapter alone. Its weights see the AdamW defaults that the table names."""
MISTRAL = Hyper({"adapter": 5e-6, "decoder": 2e-6, "tower": 2e-7}, (0.9, 0.95), 1e-5)
"""Stages 2 and 3 of the paper's Mistral, and of every family that names no settings."""
GEMMA = Hyper({"adapter": 2e-5, "decoder": 1e-5, "tower": 1e-6}, (0.9, 0.95), 1e-5)
"""Stages 2 and 3 of the paper's Gemma 2."""


def hyper_of(cell: Cell, training: Hyper) -> Hyper:
    """What a cell trains with; ``training`` is what its model's family names."""
    return PRETRAINING if {"decoder", "tower"} <= set(cell.frozen_parts) else training
