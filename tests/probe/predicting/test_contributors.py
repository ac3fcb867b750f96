"""A prediction is the sum of what its contributors add."""

import pytest

from workbench.probe.predicting import predict as predicting
from workbench.probe.predicting.contribution import Contribution, Contributions
from workbench.probe.predicting.contributors import CONTRIBUTORS
from workbench.probe.predicting.subject import Subject
from workbench.vocabulary.cell import make_cell

CELL = make_cell(model="tinyllama-1.1b", num_visual=64)


def test_a_contributor_adds_metrics_flags_details_and_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fans(subject: Subject, so_far: Contributions) -> Contribution:
        assert so_far.seconds is not None
        assert so_far.metrics["params"] == subject.traced.params
        return Contribution(
            {"params": 7}, ["fans: they turn"], {"fans": 2}, lambda seconds: (seconds or 0) + 1
        )

    before = predicting.predict(CELL, "h100-80gb")
    place = [each.__name__ for each in CONTRIBUTORS].index("speed")
    more = (*CONTRIBUTORS[:place], fans, *CONTRIBUTORS[place:])
    monkeypatch.setattr(predicting, "CONTRIBUTORS", more)
    after = predicting.predict(CELL, "h100-80gb")
    assert after.metrics["params"] == 7
    assert after.metrics["time_s"] == before.metrics["time_s"] + 1  # type: ignore[operator]
    assert after.flags == [*before.flags, "fans: they turn"]
    assert after.details == {**before.details, "fans": 2}
    assert {**after.metrics, "params": 1, "time_s": 1}.keys() == before.metrics.keys()


def test_unknown_seconds_stay_unknown() -> None:
    record = predicting.predict(CELL, "cpu")
    assert record.metrics["time_s"] is None
    assert record.metrics["mfu"] is None
    assert sum(flag.startswith("time_s: ") for flag in record.flags) == 1


def test_what_is_computed_for_several_contributors_is_computed_once() -> None:
    calls = []

    def look(subject: Subject, _: Contributions) -> Contribution:
        calls.append((subject.memory, subject.peak, subject.times, subject.roomy))
        return Contribution()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predicting, "CONTRIBUTORS", (look, *CONTRIBUTORS, look))
        predicting.predict(CELL, "h100-80gb")
    first, last = calls
    assert all(one is other for one, other in zip(first, last, strict=True))
