"""What the reader's own case costs, as the table on a report's first page."""

from collections.abc import Callable, Sequence
from math import inf

from workbench.analysis.trust import trust
from workbench.report.case import Case, CaseAnswer
from workbench.telling.page import Table
from workbench.vocabulary.thresholds import errors_of
from workbench.vocabulary.units import quantity

NOTHING = "–"
"""A cell without a value; a row of nothing else is left out."""


def case_table(case: Case, answers: Sequence[CaseAnswer]) -> Table:
    """GPU-hours, money where there is a price, and minutes of video: a column a system.

    Its title is the sentence that says who wins. What no system has a value of has no row.
    """
    steps = f"{case.steps:,} steps"
    rows: list[tuple[str, Callable[[CaseAnswer], str]]] = [
        ("fits a card", _fits),
        ("an iteration", lambda answer: quantity(answer.timed, "s") if answer.timed else NOTHING),
        (f"GPU-hours for {steps}", lambda answer: _amount(_hours(case, answer))),
    ]
    if case.price is not None:
        rows.append((f"{case.currency} for {steps}", lambda answer: _amount(_money(case, answer))))
    rows += [
        ("largest |V| that fits", lambda answer: _whole(answer.max_visual)),
        ("minutes of video that fit", lambda answer: _minutes(case, answer)),
    ]
    cells = [(name, *(tell(answer) for answer in answers)) for name, tell in rows]
    return Table(
        f"Your case, predicted: {_verdict(case, answers)}",
        ("", *(answer.name for answer in answers)),
        tuple(row for row in cells if set(row[1:]) != {NOTHING}),
        _note(case, answers),
    )


def _verdict(case: Case, answers: Sequence[CaseAnswer]) -> str:
    """Who wins on the reader's data, by how much, and what that saves; or that nothing fits."""
    of = f"with {case.shown},"
    timed = [answer for answer in answers if answer.timed]
    if not timed:
        most = max(answers, key=_reach)
        takes = f"; {most.name} takes most, {_reach(most):,} visual tokens" if _reach(most) else ""
        return f"{of} nothing fits {case.device}{takes}."
    best = min(timed, key=_seconds)
    rivals = [a for a in answers if _is_baseline(a) is not _is_baseline(best)]
    rival = min(rivals, key=lambda answer: (_seconds(answer), -_reach(answer)))
    if not rival.timed:
        return (
            f"{of} {best.name} fits, {quantity(best.timed, 's')} an iteration; {rival.name} takes"
            f" {_reach(rival):,} visual tokens at most."
        )
    hours = f"{_amount(_hours(case, best))} GPU-hours in place of {_amount(_hours(case, rival))}"
    if case.price is not None:
        hours += (
            f", {_amount(_money(case, best))} {case.currency} in place of"
            f" {_amount(_money(case, rival))}"
        )
    return (
        f"{of} {best.name} takes {quantity(best.timed, 's')} an iteration,"
        f" {rival.timed / _seconds(best):.2f}× as fast as {rival.name};"
        f" {case.steps:,} steps take {hours}."
    )


def _is_baseline(answer: CaseAnswer) -> bool:
    return answer.cell.attention == "s_attn"


def _reach(answer: CaseAnswer) -> int:
    return answer.max_visual or 0


def _seconds(answer: CaseAnswer) -> float:
    return answer.timed or inf


def _fits(answer: CaseAnswer) -> str:
    peak = quantity(answer.peak_bytes, "B")
    words = {"ok": f"yes, {peak}", "oom": f"no, needs {peak}"}
    return words.get(answer.status, "cannot run")


def _hours(case: Case, answer: CaseAnswer) -> float | None:
    return None if answer.timed is None else answer.timed * case.steps * case.gpus / 3600


def _money(case: Case, answer: CaseAnswer) -> float | None:
    hours = _hours(case, answer)
    return None if hours is None or case.price is None else hours * case.price


def _minutes(case: Case, answer: CaseAnswer) -> str:
    if answer.max_visual is None or not case.tokens_of_a_minute:
        return NOTHING
    return f"{max(0, answer.max_visual - case.beside) / case.tokens_of_a_minute:,.1f}"


def _amount(value: float | None) -> str:
    return NOTHING if value is None else f"{value:,.2f}"


def _whole(value: int | None) -> str:
    return NOTHING if value is None else f"{value:,}"


def _note(case: Case, answers: Sequence[CaseAnswer]) -> str:
    """What was predicted, of what, and how far the figures can be trusted."""
    cards = "one card" if case.gpus == 1 else f"each of {case.gpus:,} cards, ZeRO 3"
    beside = " Minutes of video: beside the images." if case.beside else ""
    lines = [trust(flag) for answer in answers if answer.timed for flag in answer.flags]
    errors = errors_of(answers[0].cell, case.device)
    lines += [errors.words] if errors else []
    certainty = [f"{line[0].upper()}{line[1:]}." for line in dict.fromkeys(lines) if line]
    return " ".join(
        [
            f"Nothing ran: predicted for {case.device}, {case.model}, {case.shown},"
            f" |T| = {case.text:,}, a training step of a sample on {cards}, with checkpoints and"
            " logits of text rows. Of flash, cuDNN and flex each system has the kernel that is"
            " predicted to be fastest; communication is assumed to hide behind the"
            f" computing.{beside}",
            *certainty,
        ]
    )
