"""Predictors in processes of their own: the dashboard itself never loads torch. No Streamlit."""

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from typing import Any

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
        self._process: subprocess.Popen[str] | None = None
        self._answers: queue.Queue[str | None] = queue.Queue()
        self._said: list[str] = []

    def ask(self, question: Question) -> Answer:
        """The answer's document; {"error": LINE} where the request was wrong.

        Raises Failure, one line, where there is no predictor (no torch), it ended or is too slow;
        the next question starts another.
        """
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._start()
            process = self._process
            assert process is not None
            assert process.stdin is not None
            try:
                process.stdin.write(json.dumps(question) + "\n")
                process.stdin.flush()
            except OSError:
                raise self._ended() from None
            return self._read(self._answer_s)

    def close(self) -> None:
        """End the process, if there is one."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    stream.close()

    def _start(self) -> None:
        self.close()
        self._answers, self._said = queue.Queue(), []
        pipe = subprocess.PIPE
        self._process = process = subprocess.Popen(
            self._command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, encoding="utf-8"
        )
        for work, place in ((_lines, self._answers), (_last_words, self._said)):
            threading.Thread(target=work, args=(process, place), daemon=True).start()
        self._read(START_S)

    def _read(self, timeout_s: float) -> Answer:
        try:
            line = self._answers.get(timeout=timeout_s)
        except queue.Empty:
            self.close()
            raise Failure(f"the predictor gave no answer within {timeout_s:g} s") from None
        if line is None:
            raise self._ended()
        try:
            found = json.loads(line)
        except ValueError:
            self.close()
            raise Failure("the predictor's answer is not JSON") from None
        return dict(found)

    def _ended(self) -> Failure:
        assert self._process is not None
        code = self._process.wait()
        # The thread that reads its last words may be a moment behind.
        deadline = time.monotonic() + 1.0
        while not self._said and time.monotonic() < deadline:
            time.sleep(0.01)
        said = self._said[-1].removeprefix("workbench: ") if self._said else f"exit code {code}"
        self.close()
        return Failure(f"the predictor did not run: {said[:300]}")


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


def _lines(process: subprocess.Popen[str], place: "queue.Queue[str | None]") -> None:
    assert process.stdout is not None
    for line in process.stdout:
        place.put(line)
    place.put(None)


def _last_words(process: subprocess.Popen[str], place: list[str]) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if line.strip():
            place[:] = [line.strip()]
