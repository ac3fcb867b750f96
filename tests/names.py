"""The names that a shell completes to.

To write them: ``.venv/bin/python -c "from tests.names import rewrite; rewrite()"``.
"""

import json

from workbench.commands.completion import NAMES
from workbench.lvlm.kernels import KERNELS
from workbench.lvlm.models import MODELS
from workbench.lvlm.optimizers import OPTIMIZERS
from workbench.lvlm.towers import TOWERS
from workbench.report.question import QUESTIONS
from workbench.visual import VISIONS

KINDS = {
    "model": MODELS,
    "kernel": KERNELS,
    "optimizer": OPTIMIZERS,
    "tower": TOWERS,
    "vision": VISIONS,
    "question": QUESTIONS,
}


def text() -> str:
    """The file as it should be."""
    return json.dumps({kind: sorted(names) for kind, names in KINDS.items()}, indent=1) + "\n"


def rewrite() -> None:
    """Write it."""
    NAMES.write_text(text(), encoding="utf-8")
