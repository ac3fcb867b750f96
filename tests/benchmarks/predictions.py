"""Predictions in bulk: how long a grid takes, and how far small whole models are from measured."""

import time
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.lvlm.definitions import definition, settings_of
from tests.probe.predicting.test_predicted_memory import error, whole_model
from tests.small import FAMILY_NAMES
from workbench.lvlm.attention import SYSTEMS
from workbench.probe.predicting.predict import predict
from workbench.vocabulary.cell import make_cell

SIZES = tuple(256 * n**2 for n in range(1, 21))
MODELS = ("mistral-7b-v0.3", "gemma-2-9b")
LONE_LAYERS = [name for name, system in SYSTEMS.items() if system.lone_layer]
"""Systems that a layer alone shows; the others act between layers and refuse that scope."""
CELLS = [
    make_cell(
        attention=a, settings=settings_of(a), model=m, kernel="eager", num_visual=v, **{"pass": p}
    )
    for a, m, p, v in product(LONE_LAYERS, MODELS, ("forward", "train"), SIZES)
]


def grid_s() -> float:
    """Seconds for one layer of every system at 20 |V|, in two families and two passes."""
    start = time.perf_counter()
    for cell in CELLS:
        predict(cell, "h100-80gb")
    return time.perf_counter() - start


def memory_errors() -> list[float]:
    """Relative errors of peak memory on the CPU: a training step of every family and system."""
    with TemporaryDirectory() as folder:
        return [
            error(whole_model(family, attention, Path(folder)))
            for family, attention in product(FAMILY_NAMES, SYSTEMS)
            if family not in getattr(definition(attention), "REFUSED", ())
        ]
