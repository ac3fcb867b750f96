"""Numbers as people read them."""

import math

import pytest

from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.units import count_of, digits, interval, quantity


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (1.2345e13, "FLOP", "12.3 TFLOP"),
        (402_653_184, "FLOP", "403 MFLOP"),
        (16_384, "FLOP", "16.4 kFLOP"),
        (3.6e9, "B", "3.35 GiB"),
        (1023, "B", "1,023 B"),
        (1024, "B", "1 KiB"),
        (0.0123, "s", "12.3 ms"),
        (1234.5, "s", "1,234 s"),
        (0.99999, "s", "1 s"),
        (2.3e-9, "s", "2.3 ns"),
        (-0.0042, "s", "-4.2 ms"),
        (0, "B", "0 B"),
        (131_072.0, "1", "131,072"),
        (0.4567, "1", "0.457"),
        (None, "s", "n/a"),
        (math.nan, "B", "n/a"),
        (2**70, "B", "1.07e+09 TiB"),
        (0.5793, "1/s", "0.579 /s"),
        (2549.3, "1/s", "2,549 /s"),
    ],
)
def test_quantity_picks_the_prefix_that_reads_best(
    value: float | None, unit: str, shown: str
) -> None:
    assert quantity(value, unit) == shown


def test_an_interval_is_in_the_unit_of_its_value() -> None:
    assert interval(0.00407, 0.0009, 0.0042, "s") == "4.07 ms (0.9 to 4.2)"
    assert interval(0.0, -1.0, 1.0, "FLOP") == "0 FLOP (-1 to 1)"


@pytest.mark.parametrize("value", [0.000123456, 0.0999999, 9.9999, 12345.678, 999_999.0])
def test_digits_keeps_three_significant_ones(value: float) -> None:
    assert float(digits(value).replace(",", "")) == pytest.approx(value, rel=5e-3)
    assert "e" not in digits(value)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("10k", 10_000),
        ("10K", 10_000),
        ("1.5M", 1_500_000),
        (" 2G ", 2 * 10**9),
        ("0k", 0),
        ("0.1k", 100),
        ("1e6", 10**6),
        ("2.5E+3", 2500),
        ("2.5e0", None),
        ("1e-3", None),
        ("1e", None),
        ("1e999", None),
        ("1.543k", 1543),
        ("1.5432k", None),
        ("10", None),
        ("k", None),
        (".5k", None),
        ("-1k", None),
        ("1e3k", None),
        ("1_0k", None),
        ("10ki", None),
        ("10 k", None),
        ("٣k", None),
        ("9" * 13 + "k", None),
        ("", None),
    ],
)
def test_a_short_number_is_exact_or_none(text: str, number: int | None) -> None:
    assert count_of(text) == number


def test_a_message_that_quotes_a_whole_file_is_cut_in_its_middle() -> None:
    text = str(RequestError("model 'x': rope_type " + 100_000 * "9" + " is unknown; known: yarn"))
    assert len(text) < 2_000
    assert text.startswith("model 'x': rope_type 99")
    assert text.endswith("is unknown; known: yarn")
    assert str(RequestError("short")) == "short"
