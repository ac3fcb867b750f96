"""How soon the planner answers one question: Qwen3-VL-8B, LoRA, four images, a card of 24 GB.

In CPU seconds of the busiest process, the dashboard's or a predictor's, beside which the others
work: seconds of a machine that is otherwise idle and has a core for each. The predictors have
loaded torch by then, as they have once a reader has seen the page.
"""

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from streamlit.testing.v1 import AppTest

from tests.benchmarks.dashboard import Time
from workbench.dashboard.pages import planner

QUESTION = {
    "model": "qwen3-vl-8b",
    "device": "rtx-4090-24gb",
    "pass": "train",
    "look_at": "images",
    "images": "4",
    "resolution": "1280x720",
    "vision": "qwen3-vl",
    "tower": "true",
    "cards": "1",
    "lora": "true",
}
ANSWER_S = 3.0
AGAIN_S = 0.5
PAGE = "from workbench.dashboard.pages import planner\nplanner.render()\n"


class Clock(NamedTuple):
    """CPU seconds of this process and of those that it started, by process."""

    seconds: dict[int, float]

    @classmethod
    def now(cls) -> "Clock":
        """What they have taken so far."""
        own = psutil.Process()
        times = {each.pid: each.cpu_times() for each in (own, *own.children(recursive=True))}
        return cls({pid: each.user + each.system for pid, each in times.items()})

    def since(self, before: "Clock") -> float:
        """Seconds of the busiest process between two moments."""
        return max(s - before.seconds.get(pid, 0.0) for pid, s in self.seconds.items())


def times() -> Iterator[Time]:
    """The answer on top, then all that stands below it, then the same question once more.

    Raises AssertionError where the page fails or has no answer.
    """
    moments: list[Clock] = []
    shown = planner.answer

    def answer(lines: Any) -> None:
        moments.append(Clock.now())
        shown(lines)

    before, argv = Path.cwd(), sys.argv
    sys.argv = ["app.py"]
    planner.answer = answer
    try:
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            _run({"look_at": "tokens", "visual": "64", "attentions": "S-Attn"})
            _wait_for_predictors()
            moments.clear()
            start = Clock.now()
            _run(QUESTION)
            assert moments, "the page has an answer"
            yield Time("the answer, CPU time", moments[0].since(start), ANSWER_S)
            yield Time("every line, CPU time", Clock.now().since(start), ANSWER_S)
            start = Clock.now()
            _run(QUESTION)
            yield Time("asked again, CPU time", Clock.now().since(start), AGAIN_S)
    finally:
        planner.answer = shown
        os.chdir(before)
        sys.argv = argv


def _run(query: dict[str, str]) -> None:
    test = AppTest.from_string(PAGE, default_timeout=180)
    for key, value in query.items():
        test.query_params[key] = value
    test.run()
    assert not test.exception, test.exception


def _wait_for_predictors() -> None:
    """Until nothing starts any more: for a second no process took any time."""
    last = Clock.now()
    while True:
        time.sleep(1.0)
        now = Clock.now()
        if now.since(last) < 0.05:
            return
        last = now
