"""The prediction of a report's case: the one part of a report that needs torch."""

from workbench.report.case import Case, CaseAnswer
from workbench.vocabulary.errors import RequestError, Unsupported


def answer_case(case: Case) -> list[CaseAnswer]:
    """Every cell of the case predicted, with its threshold; RequestError for a wrong name."""
    from workbench.interface import limit, predict

    answers = []
    for cell in case.cells():
        record = predict(cell, case.device)
        largest = None
        if record.status in ("ok", "oom"):
            try:
                largest = limit(cell, case.device).max_visual
            except (RequestError, Unsupported):
                largest = None
        time_s, peak = record.metrics.get("time_s"), record.metrics.get("peak_bytes")
        answers.append(
            CaseAnswer(
                cell,
                record.status.value,
                time_s,
                None if peak is None else int(peak),
                largest,
                tuple(record.flags),
            )
        )
    return answers
