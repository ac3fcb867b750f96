"""Every operator of every system and family stands in the table of what a card does there."""

from pathlib import Path

import pytest

from tests.lvlm.definitions import assert_refused, settings_of
from tests.lvlm.test_kimi_k25 import written as write_kimi_k25
from tests.lvlm.test_lfm2_vl import written as write_lfm2_vl
from tests.small import (
    CONVOLVING,
    FAMILY_NAMES,
    LATENT,
    MIXED,
    TOWERS,
    WRAPPERS,
    small_lvlm,
    small_model,
    small_wrapper,
)
from workbench.lvlm.attention import SYSTEMS
from workbench.lvlm.kernels import KERNELS
from workbench.lvlm.models import resolve
from workbench.lvlm.reduce import REDUCERS
from workbench.lvlm.towers import tower_of
from workbench.probe.counting.allocator import CARD
from workbench.probe.counting.card import TEMPORARIES
from workbench.probe.counting.operators import KNOWN, ROWS, markdown
from workbench.probe.counting.trace import trace
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import Unsupported

PAGE = Path(__file__).parents[3] / "docs" / "method.md"


def operators(**fields: object) -> set[str]:
    cell = make_cell(**{"num_visual": 48, "num_text": 16, **fields})
    return {op.name for op in trace(cell, CARD, compose=False).operators}


def unknown(**fields: object) -> set[str]:
    return operators(**fields) - KNOWN


@pytest.mark.parametrize("family", [*FAMILY_NAMES, MIXED[0], *CONVOLVING])
def test_every_system_of_a_family_runs_operators_that_were_gone_through(family, tmp_path):
    model = small_model(family, tmp_path)
    for system in SYSTEMS:
        step: dict[str, object] = {
            "model": model,
            "attention": system,
            "kernel": "eager",
            "scope": "decoder",
        }
        step["settings"] = settings_of(system)
        try:
            for pass_ in ("train", "decode"):
                assert not unknown(**step, **{"pass": pass_}), system
        except Unsupported as error:
            if family in (*MIXED, *CONVOLVING):
                assert not SYSTEMS[system].mixes
            else:
                assert_refused(error, system, family)


@pytest.mark.parametrize("kernel", sorted(KERNELS))
def test_so_does_every_kernel(kernel, tmp_path):
    model = small_model("mistral", tmp_path)
    for system in ("s_attn", "d_attn"):
        cell = {"model": model, "attention": system, "kernel": kernel, "pass": "train"}
        if kernel.startswith("flash_attention_") and system == "d_attn":
            with pytest.raises(Unsupported, match="serves s_attn only"):
                operators(**cell)
            continue
        assert not unknown(**cell)


OPTIONS: tuple[dict[str, object], ...] = (
    {"tiled": True, "chunk": 16},
    {"fold": True, "dtype": "float16"},
    {"layout": "T,V,T", "batch": 2},
    {"loss_rows": "all"},
    {"checkpoint": True, "offload": True},
    {"skip_last": True, "logits": "text"},
)


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(o))
def test_so_does_every_option(options, tmp_path):
    model = small_model("mistral", tmp_path)
    step = {"model": model, "attention": "d_attn", "scope": "decoder", "pass": "train"}
    for kernel in ("eager", "sdpa"):
        assert not unknown(**step, kernel=kernel, **options)


CACHES = ({"cache_dtype": "int8"}, {"cache_dtype": "fp8", "pass": "decode"})


@pytest.mark.parametrize("fields", [*CACHES, {"pass": "train", "lora": "r=2,dropout=0.1"}])
def test_so_do_caches_and_adapters(fields, tmp_path):
    assert not unknown(model=small_model("mistral", tmp_path), scope="decoder", **fields)


@pytest.mark.parametrize("family", sorted(TOWERS))
def test_so_does_every_tower(family, tmp_path):
    model = small_lvlm(family, tmp_path)
    cell = {"model": model, "scope": "lvlm", "pass": "train"}
    assert not unknown(**cell, num_visual=IMAGE[family])


@pytest.mark.parametrize("kind", sorted(WRAPPERS))
def test_so_does_every_tower_around_another_family(kind, tmp_path):
    model = small_wrapper(kind, tmp_path)
    cell = {"model": model, "scope": "lvlm", "pass": "train", "kernel": "eager"}
    assert not unknown(**cell, num_visual=tower_of(resolve(model)).tokens_each)


@pytest.mark.parametrize("family", LATENT)
def test_so_does_latent_attention(family, tmp_path):
    cell = {"model": small_model(family, tmp_path), "scope": "decoder", "kernel": "eager"}
    for pass_ in ("train", "decode"):
        assert not unknown(**cell, **{"pass": pass_})


@pytest.mark.parametrize(("write", "visual"), [(write_lfm2_vl, 64), (write_kimi_k25, 1024)])
def test_so_does_a_tower_of_any_shape(write, visual, tmp_path):
    cell = {"model": write(tmp_path), "scope": "lvlm", "kernel": "eager", "pass": "train"}
    assert not unknown(**cell, num_visual=visual)


@pytest.mark.parametrize("reducer", sorted(REDUCERS))
def test_so_does_every_reducer(reducer, tmp_path):
    model = small_lvlm("mistral", tmp_path)
    cell = {"model": model, "scope": "lvlm", "pass": "train", "reduce": reducer}
    assert not unknown(**cell, settings=settings_of(reducer))


IMAGE = {
    "mistral": 16,
    "llama": 16,
    "gemma3": 4,
    "gemma4": 64,
    "mllama": 68,
    "llama4": 12,
    "qwen2_5_vl": 4,
    "qwen2_vl": 4,
    "glm4v": 8,
    "glm4v_moe": 8,
    "glm_ocr": 8,
    "ernie4_5_vl_moe": 4,
    "qwen2_5_omni": 4,
    "qwen3_vl": 64,
    "qwen3_vl_moe": 64,
    "qwen3_5": 64,
    "qwen3_5_moe": 64,
    "qwen3_omni_moe": 64,
    "deepseek_ocr2": 257,
    "aria": 5,
    "hyperclovax": 4,
}
"""Tokens of one image of these small towers."""


def test_rules_and_rows_are_about_the_same_operators():
    listed = [name for row in ROWS for name in row.operators]
    assert len(listed) == len(set(listed))
    ruled = {str(packet).removeprefix("aten.") for packet in TEMPORARIES}
    said = {name for row in ROWS if "`temporaries`" in row.card for name in row.operators}
    assert said == ruled - {"_index_put_impl_"}  # What index_put itself calls on a card.


def test_the_method_page_shows_the_table():
    assert markdown() in PAGE.read_text(encoding="utf-8")
