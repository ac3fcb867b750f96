"""The command of a record asks for exactly its cell."""

import re
import shlex

import pytest

from workbench.report.command import command_of
from workbench.vocabulary.cell import FIELDS, make_cell, option_of


@pytest.mark.parametrize(
    ("fields", "source", "device", "command"),
    [
        ({"num_visual": 256}, "measured", "cpu", "workbench measure --visual 256 --device cpu"),
        (
            {
                "num_visual": 74_000,
                "num_text": 400,
                "attention": "d_attn",
                "checkpoint": True,
                "zero": 3,
                "world_size": 32,
                "chunk": 4096,
                "pass": "train",
            },
            "predicted",
            "h100-80gb",
            "workbench predict --visual 74000 --attention d_attn --pass train --text 400 --zero 3"
            " --world-size 32 --chunk 4096 --checkpoint --device h100-80gb",
        ),
        (
            {"num_visual": 1},
            "measured",
            "NVIDIA H200",
            "workbench measure --visual 1 --device cuda",
        ),
        (
            {"num_visual": 1, "model": "a b; rm -rf $HOME"},
            "measured",
            "cpu",
            "workbench measure --visual 1 --model 'a b; rm -rf $HOME' --device cpu",
        ),
    ],
)
def test_the_options_are_those_of_the_command_line(
    fields: dict[str, object], source: str, device: str, command: str
) -> None:
    assert command_of(make_cell(**fields), source, device) == command


def test_every_option_exists() -> None:
    """Every field of a cell has an option of that name."""
    from typer.main import get_command

    from workbench.cli import app
    from workbench.commands.options import give_all_options

    give_all_options()
    names = {name for each in get_command(app).commands["measure"].params for name in each.opts}
    for field in FIELDS:
        words = shlex.split(command_of(make_cell(num_visual=1), "measured", "cpu"))
        assert all(re.fullmatch(r"--[a-z-]+", w) for w in words if w.startswith("--"))
        assert option_of(field) in names
