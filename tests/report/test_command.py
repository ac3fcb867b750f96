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


TRAIN = {"pass": "train", "scope": "decoder"}
OTHERS: list[dict[str, object]] = [
    {**TRAIN, "lora": "r=16,alpha=32,targets=q_proj+v_proj,dtype=float32", "checkpoint": True},
    {**TRAIN, "lora": "r=8", "weights_dtype": "int4"},
    {**TRAIN, "loss_rows": "all", "tiled": True, "attention": "d_attn", "skip_last": True},
    {**TRAIN, "optimizer": "adamw_8bit", "master_weights": "bfloat16", "accumulate": 4},
    {**TRAIN, "zero": 3, "world_size": 8, "ring": 4, "ring_order": "contiguous", "num_visual": 64},
    {**TRAIN, "zero": 3, "world_size": 8, "ulysses": 2, "sub_group_size": 10**8},
    {**TRAIN, "zero": 2, "offload_optimizer": True, "checkpoint": True, "checkpoint_every": 4},
    {**TRAIN, "checkpoint": True, "offload": True, "allocator": "expandable_segments"},
    {"scope": "lvlm", "pass": "train", "frozen": "decoder,tower", "visual_positions": True},
    {"scope": "lvlm", "reduce": "pool", "settings": "side=3", "tower": "siglip"},
    {"scope": "decoder", "attention": "fastv", "settings": ["keep=0.25", "at=3"]},
    {"scope": "decoder", "attention": "fastv", "reduce": "pool", "settings": "side=4,keep=0.25"},
    {"scope": "decoder", "cache": True, "dtype": "float16"},
    {"scope": "decoder", "pass": "decode", "cache_dtype": "fp8", "kernel": "eager"},
    {"scope": "decoder", "cache_dtype": "int8", "logits": "text"},
    {"scope": "decoder", "model": "qwen3-30b-a3b", "experts_skew": True, "compile": True},
    {"layout": "V8,T4,V8,T60", "num_visual": 16, "layer": 5, "batch": 3, "num_text": 64},
    {"attention": "d_attn", "fold": True, "chunk": 8192, "memory_cap": 2**34},
    {"attention": "himix", "scope": "decoder", "memory_cap": "a100-40gb"},
    {"weights": "some folder/of mine", "model": "some folder/of mine"},
]


@pytest.mark.parametrize("fields", OTHERS, ids=lambda fields: " ".join(map(str, fields)))
def test_the_command_line_reads_that_very_cell(fields: dict[str, object]) -> None:
    from typer.main import get_command

    from workbench.cli import app
    from workbench.commands.options import cell_of_values, give_all_options

    give_all_options()
    cell = make_cell(**{"num_visual": 256, **fields})
    _, name, *words = shlex.split(command_of(cell, "predicted", "h100-80gb"))
    command = get_command(app).commands[name]
    assert cell_of_values(name, command.make_context(name, words).params) == cell


def test_every_field_is_among_them() -> None:
    """Every field of a cell has a value there that is not its default."""
    changed = {name for fields in OTHERS for name in fields}
    assert set(FIELDS) <= changed | {"attention", "kernel", "dtype", "num_visual"}
