"""``ask``: many questions to one process, so that torch is loaded once."""

import gc
import json
import os
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any, BinaryIO, TextIO

from workbench.inputs.files import parse_json
from workbench.vocabulary.errors import Failure, RequestError, Unsupported

FIRST = {
    "cell": {"num_visual": 1, "scope": "decoder", "pass": "train", "checkpoint": True},
    "device": "h100-80gb",
}
SHOWN = {"resolution", "count", "frames", "fps", "min_pixels", "max_pixels"}
"""What a question may say of its pictures."""
MAX_LINE = 100_000
"""Bytes of a question: a cell is a few hundred."""


def ask() -> None:
    """Answer questions, one JSON document a line: predict and limit of cells, names.

    A question is {"do": "predict" or "limit", "cell": {…}, "device": NAME}, {"do": "unit", …}, of
    which |V| has to be a multiple in such a cell, {"do": "batch", …}, the largest that fits,
    {"do": "fields", …, "pictures": {…}}, what images of a size are, or {"do": "names"}; with
    "pictures" a prediction shows images of that size. The answer is the document
    of that command, or {"error": LINE}. It ends with its input.
    """
    import workbench.probe.predicting.limit  # noqa: F401  Loaded before a question waits for it.

    _predict(FIRST)  # So is what torch and transformers load when a model is first built.
    # What is loaded stays: the collector need not walk it again for every question.
    gc.collect()
    gc.freeze()
    questions, out = sys.stdin.buffer, sys.stdout
    say(out, {"ready": True})
    # Whatever a library prints, or would ask, is neither an answer nor a question.
    with open(os.devnull, encoding="utf-8") as nothing, redirect_stdout(sys.stderr):
        sys.stdin = nothing
        answer_all(questions, lambda document: say(out, document))


def say(out: TextIO, document: dict[str, Any]) -> None:
    """One answer, a line."""
    print(json.dumps(document), file=out, flush=True)


def answer_all(questions: BinaryIO, tell: Callable[[dict[str, Any]], None]) -> None:
    """Answer every line of ``questions``, whatever one of them does, until there are no more.

    A question that fails, in any way, has an answer of one line, ``{"error": …}``.
    """
    while line := questions.readline(MAX_LINE + 1):
        whole = line.endswith(b"\n") or len(line) <= MAX_LINE
        while not whole:  # The rest of a line that is too long is no question of its own.
            rest = questions.readline(MAX_LINE)
            whole = not rest or rest.endswith(b"\n")
        tell(_answered(line))
        gc.collect(1)  # What the question left, while nobody waits.


def _answered(line: bytes) -> dict[str, Any]:
    try:
        if len(line) > MAX_LINE:
            raise RequestError(f"question: longer than {MAX_LINE:,} bytes")
        answer = _answer(parse_json(_text(line), "question"))
        json.dumps(answer)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - it is the answer to this line
        foreseen = isinstance(error, (RequestError, Unsupported, Failure))
        text = " ".join(str(error).split())
        if not foreseen:
            text = f"{type(error).__name__}: {text:.300}" if text else type(error).__name__
        return {"error": text}
    return answer


def _text(line: bytes) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RequestError(
            f"question: cannot be read as UTF-8 text: byte {error.start} is none"
        ) from None


def _answer(question: Any) -> dict[str, Any]:
    kind = question.get("do") if isinstance(question, dict) else None
    if not isinstance(kind, str) or kind not in _ANSWERS:
        choices = ", ".join(_ANSWERS)
        raise RequestError(f"question {question!r:.80}: an object whose 'do' is one of {choices}")
    return _ANSWERS[kind](question)


def _cell(question: dict[str, Any]) -> tuple[Any, str]:
    from workbench.vocabulary.cell import make_cell

    cell, device = question.get("cell"), question.get("device")
    if not isinstance(cell, dict) or not isinstance(device, str):
        raise RequestError("question: 'cell' is an object and 'device' a name")
    return make_cell(**cell), device


def _predict(question: dict[str, Any]) -> dict[str, Any]:
    from workbench.probe.predicting.predict import predict

    return predict(*_cell(question), pictures=_pictures(question)).document()


def _pictures(question: dict[str, Any]) -> Any:
    """What the question's cell shows, by size: no file is read for a question."""
    from workbench.vocabulary.pictures import make_pictures

    scene = question.get("pictures")
    if scene is None:
        return None
    if not isinstance(scene, dict) or not {"resolution"} <= set(scene) <= SHOWN:
        raise RequestError(f"question: 'pictures' has a resolution, of {', '.join(sorted(SHOWN))}")
    return make_pictures(**scene)


def _fields(question: dict[str, Any]) -> dict[str, Any]:
    from workbench.lvlm.pictures import fields_of

    cell, _ = _cell(question)
    pictures = _pictures(question)
    if pictures is None:
        raise RequestError("question: 'fields' needs pictures")
    return fields_of(cell.model, pictures, cell.layout, cell.tower)


def _batch(question: dict[str, Any]) -> dict[str, Any]:
    from workbench.probe.predicting.solve import Question, solved

    cell, device = _cell(question)
    return solved(cell, device, Question("batch", num_visual=cell.num_visual))


def _limit(question: dict[str, Any]) -> dict[str, Any]:
    from workbench.probe.predicting.limit import predicted_limit

    return predicted_limit(*_cell(question)).document()


def _unit(question: dict[str, Any]) -> dict[str, Any]:
    from workbench.lvlm.places import visual_unit

    return {"unit": visual_unit(_cell(question)[0])}


def _names(_: dict[str, Any]) -> dict[str, Any]:
    from workbench.lvlm.attention import SYSTEMS
    from workbench.lvlm.kernels import KERNELS
    from workbench.lvlm.models import MODELS
    from workbench.lvlm.optimizers import OPTIMIZERS

    return {
        "models": list(MODELS),
        "attentions": list(SYSTEMS),
        "kernels": list(KERNELS),
        "optimizers": list(OPTIMIZERS),
    }


_ANSWERS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "predict": _predict,
    "limit": _limit,
    "batch": _batch,
    "fields": _fields,
    "unit": _unit,
    "names": _names,
}
