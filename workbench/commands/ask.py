"""``ask``: many questions to one process, so that torch is loaded once."""

import gc
import json
import sys
from collections.abc import Callable
from typing import Any

from workbench.commands import show
from workbench.errors import Failure, RequestError, Unsupported

FIRST = {
    "cell": {"num_visual": 1, "scope": "decoder", "pass": "train", "checkpoint": True},
    "device": "h100-80gb",
}
MAX_LINE = 100_000
"""Characters of a question: a cell is a few hundred."""


def ask() -> None:
    """Answer questions, one JSON document a line: predict and limit of cells, names.

    A question is {"do": "predict" or "limit", "cell": {…}, "device": NAME}, {"do": "unit", …}, of
    which |V| has to be a multiple in such a cell, or {"do": "names"}; its answer is the document
    of that command, or {"error": LINE}. It ends with its input.
    """
    import workbench.probe.predicting.limit  # noqa: F401  Loaded before a question waits for it.

    _predict(FIRST)  # So is what torch and transformers load when a model is first built.
    # What is loaded stays: the collector need not walk it again for every question.
    gc.collect()
    gc.freeze()
    show.emit({"ready": True})
    sys.stdout.flush()
    while line := sys.stdin.readline(MAX_LINE):
        try:
            answer = _answer(json.loads(line))
        except (RequestError, Unsupported, Failure) as error:
            answer = {"error": " ".join(str(error).split())}
        except (json.JSONDecodeError, RecursionError) as error:
            answer = {"error": f"question {line[:60]!r}: not JSON: {error}"}
        show.emit(answer)
        sys.stdout.flush()
        gc.collect(1)  # What the question left, while nobody waits.


def _answer(question: Any) -> dict[str, Any]:
    if not isinstance(question, dict) or question.get("do") not in _ANSWERS:
        choices = ", ".join(_ANSWERS)
        raise RequestError(f"question {question!r:.80}: an object whose 'do' is one of {choices}")
    return _ANSWERS[question["do"]](question)


def _cell(question: dict[str, Any]) -> tuple[Any, str]:
    from workbench.spec import make_cell

    cell, device = question.get("cell"), question.get("device")
    if not isinstance(cell, dict) or not isinstance(device, str):
        raise RequestError("question: 'cell' is an object and 'device' a name")
    return make_cell(**cell), device


def _predict(question: dict[str, Any]) -> dict[str, Any]:
    from workbench.probe.predicting.predict import predict

    return predict(*_cell(question)).document()


def _limit(question: dict[str, Any]) -> dict[str, Any]:
    from workbench.probe.predicting.limit import predicted_limit

    return predicted_limit(*_cell(question)).document()


def _unit(question: dict[str, Any]) -> dict[str, Any]:
    from workbench.lvlm.build import visual_unit

    return {"unit": visual_unit(_cell(question)[0])}


def _names(_: dict[str, Any]) -> dict[str, Any]:
    from workbench.lvlm.attention import SYSTEMS
    from workbench.lvlm.kernels import KERNELS
    from workbench.lvlm.models import MODELS

    return {"models": list(MODELS), "attentions": list(SYSTEMS), "kernels": list(KERNELS)}


_ANSWERS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "predict": _predict, "limit": _limit, "unit": _unit, "names": _names,
}  # fmt: skip
