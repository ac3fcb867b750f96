"""What predicted seconds rest on, in plain words."""

import pytest

from workbench.analysis.trust import trust


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        (
            "stand_in: attention sdpa bfloat16 backward is not calibrated; the rate of attention"
            " flash bfloat16 backward stands in",
            "sdpa attention, backward, was not measured: taken to be as fast as flash attention,"
            " backward",
        ),
        (
            "stand_in: attention eager bfloat16 is not calibrated; the rate of matmul bfloat16"
            " stands in",
            "eager attention was not measured: taken to be as fast as matmuls",
        ),
        (
            "stand_in: bytes moved decided no measured cell; they take no time",
            "taken from another operator: bytes moved decided no measured cell; they take no time",
        ),
        (
            "beyond_calibration: communication was not measured",
            "extrapolated: communication was not measured",
        ),
        (
            "uncalibrated: time_s is the roofline's lower bound, not a measured efficiency",
            "fitted to no measurement: the time is the roofline's lower bound, not a measured"
            " efficiency",
        ),
        ("power_capped: the clock was held", None),
    ],
)
def test_flags_of_predicted_seconds_are_plain_words(flag: str, words: str | None) -> None:
    assert trust(flag) == words
