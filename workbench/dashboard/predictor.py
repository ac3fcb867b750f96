"""Predictors in processes of their own: the dashboard itself never loads torch. No Streamlit."""

import json
import os
import queue
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from typing import Any

from workbench.child import Child, Ended
from workbench.vocabulary.errors import Failure

COMMAND = (sys.executable, "-m", "workbench.cli", "ask")
START_S = 120.0
"""Until torch is loaded, also on a busy machine."""
ANSWER_S = 60.0
"""For one question: the slowest prediction takes a few seconds."""

Question = dict[str, Any]
Answer = dict[str, Any]


class Predictor:
    """``workbench ask`` as long as it answers in time; started when it is first asked.

    One object serves many threads, one question at a time.
    """

    def __init__(self, command: Sequence[str] = COMMAND, answer_s: float = ANSWER_S) -> None:
        self._command, self._answer_s = tuple(command), answer_s
        self._lock = threading.Lock()
        self._child: Child | None = None

    def ask(self, question: Question) -> Answer:
        """The answer's document; {"error": LINE} where the request was wrong.

        Raises Failure, one line, where there is no predictor (no torch), it ended or is too slow;
        the next question starts another.
        """
        with self._lock:
            child = self._child
            try:
                if child is None or not child.is_alive:
                    self._end()
                    child = self._child = Child(self._command, name="predictor")
                    child.start(START_S)
                return child.ask(question, self._answer_s)
            except (Ended, TimeoutError, ValueError) as error:
                self._end()
                raise Failure(_why_not(error, child)) from None

    def close(self) -> None:
        """End the process, if there is one; whoever waits for its answer gets Failure."""
        child = self._child
        if child is not None:
            child.kill()
        with self._lock:
            self._end()

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.close()


def _why_not(error: Exception, child: Child | None) -> str:
    """One line for a question that was not answered."""
    if isinstance(error, TimeoutError):
        return f"the predictor gave {error}"
    if not isinstance(error, Ended):
        return "the predictor's answer is not JSON"
    words = child and child.last_line
    last = words.removeprefix("workbench: ") if words else f"exit code {error.code}"
    return f"the predictor did not run: {last[:300]}"


MOST = 4
"""Predictors at once; each holds about 0.4 GB."""
KEPT = 4096
"""Answers."""


class Predictors:
    """Several predictors, as many as there are cores; what was asked before is not asked again.

    One object serves many threads.
    """

    def __init__(
        self, count: int | None = None, make: Callable[[], Predictor] = Predictor
    ) -> None:
        self._count, self._make = count or min(os.cpu_count() or 1, MOST), make
        self._lock = threading.Lock()
        self._all: list[Predictor] = []
        self._free: queue.LifoQueue[Predictor] = queue.LifoQueue()
        self._answers: OrderedDict[str, Future[Answer]] = OrderedDict()

    @property
    def free(self) -> int:
        """Predictors that wait for a question."""
        return self._free.qsize()

    def ask(self, question: Question) -> Answer:
        """As ``Predictor.ask``; the answer is shared, nothing may change it."""
        words = json.dumps(question, sort_keys=True)
        with self._lock:
            answer = self._answers.get(words)
            if answer is not None:
                self._answers.move_to_end(words)
            else:
                mine: Future[Answer] = Future()
                self._answers[words] = mine
                while len(self._answers) > KEPT:
                    self._answers.popitem(last=False)
        if answer is not None:
            try:
                return answer.result()
            except CancelledError:
                return self.ask(question)
        try:
            mine.set_result(self._ask(question))
        finally:
            if not mine.done():
                with self._lock:
                    self._answers.pop(words, None)
                mine.cancel()  # Whoever waits for the same asks again.
        return mine.result()

    def close(self) -> None:
        """End every process."""
        for predictor in self._all:
            predictor.close()

    def _ask(self, question: Question) -> Answer:
        with self._lock:
            if not self._all:
                self._all.append(self._make())
                self._free.put(self._all[0])
        predictor = self._free.get()
        try:
            answer = predictor.ask(question)
        finally:
            self._free.put(predictor)
        with self._lock:
            # The first one answers before the others load the same once more.
            more = [self._make() for _ in range(self._count - len(self._all))]
            self._all += more
        for each in more:
            threading.Thread(target=self._load, args=(each,), daemon=True).start()
        return answer

    def _load(self, predictor: Predictor) -> None:
        try:
            predictor.ask({"do": "names"})
        except Failure:
            return  # Those that answer go on without it.
        self._free.put(predictor)
