"""Rules between fields: all that are broken are told, beside whatever is wrong by itself."""

import pytest

from workbench import Cell, Sweep
from workbench.vocabulary.agreement import RULES
from workbench.vocabulary.errors import Faults, RequestError, WrongField


def faults_of(make) -> list[str]:
    with pytest.raises(RequestError) as refusal:
        make()
    assert str(refusal.value) == "; ".join(refusal.value.faults)
    return [fault.partition(":")[0] for fault in refusal.value.faults]


@pytest.mark.parametrize(
    ("fields", "starts"),
    [
        ({"tower": "x", "layer": 3, "scope": "decoder"}, ["layer 3", "tower x"]),
        ({"zero": 9, "tower": "x", "fold": 3}, ["zero 9", "fold 3", "tower x"]),
        # Which of them is broken depends on the pass, which is wrong: neither is told.
        ({"pass_": "trian", "cache": True, "loss_rows": "all"}, ["pass_ 'trian'"]),
        # A rule is asked as far as the fields go that it needs.
        ({"scope": "x", "loss_rows": "all"}, ["scope 'x'", "loss_rows all"]),
        ({"scope": "x", "loss_rows": "all", "pass_": "train"}, ["scope 'x'"]),
        ({"attention": "", "settings": "a=1", "tower": "x"}, ["attention ''", "tower x"]),
        ({"chunck": 3, "ring_order": "contiguous"}, ["chunck 3", "ring_order contiguous"]),
    ],
)
def test_a_cell_says_all_that_is_wrong(fields, starts):
    assert faults_of(lambda: Cell(num_visual=9, **fields)) == starts


def test_without_a_size_the_rest_is_looked_at():
    assert faults_of(lambda: Cell(num_visual="x", num_text=0, tower="x")) == [
        "num_visual 'x'",
        "tower x",
    ]


def test_a_sweep_says_it_of_every_grid():
    grids = [
        {"visual": [3, "x"], "passes": ["trian"], "tower": "x", "cache": True, "zero": 9},
        {"visual": [5, 0], "text": 0, "layer": 2},
        {"visual": 3, "options": 3, "tower": "x"},
    ]
    assert faults_of(lambda: Sweep(name="s/", grids=grids)) == [
        "name 's/'",
        "grids.0.visual.1 'x'",
        "grids.0.passes.0 'trian'",
        "grids.0",
        "grids.0",
        "grids.1",
        "grids.2.options.0 3",
    ]


def test_what_is_right_by_itself_can_be_read_and_nothing_else():
    part = Cell.part_of({"num_visual": 9, "pass": "trian", "scope": "decoder", "tower": "x"})
    assert (part.num_visual, part.tower) == (9, "x")
    for read in (lambda: part.pass_, lambda: part.optimizes):
        with pytest.raises(WrongField):
            read()
    with pytest.raises(WrongField):
        part.document()
    assert isinstance(Cell.part_of({"num_visual": 9, "tower": "x"}), Cell)
    assert Cell.part_of("no document") is None


def test_every_rule_has_a_cell_that_it_lets_pass():
    assert [rule(Cell(num_visual=9)) for rule in RULES] == [None] * len(RULES)


def test_of_many_faults_the_rest_is_counted():
    faults = Faults()
    faults.add(*(f"field{i} {'x' * 2000}" for i in range(30)))
    with pytest.raises(RequestError) as refusal:
        faults.raise_all()
    assert refusal.value.faults[-1] == "and 10 more"
    assert all(len(line) < 1600 for line in refusal.value.faults)
