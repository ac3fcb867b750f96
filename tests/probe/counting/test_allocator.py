"""The memory of a card: blocks, workspace, temporaries, logits, and what is held in segments."""

import pytest
import torch

from tests.small import small_model
from workbench.figures.memory import KINDS
from workbench.lvlm.kernels import KERNELS
from workbench.probe.counting.allocator import CARD, allocator_of
from workbench.probe.counting.trace import trace
from workbench.probe.predicting.caching import MIB
from workbench.probe.predicting.predict import predict
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.devices import DEVICES

STEP = {"scope": "decoder", "pass": "train", "num_visual": 300, "num_text": 20}


def test_a_card_holds_a_workspace_for_each_thread_that_multiplies(tmp_path):
    cell = make_cell(model=small_model("mistral", tmp_path), **STEP)
    kinds = predict(cell, "h100-80gb").details["memory_by_kind"]
    assert kinds["workspace"] == 2 * 32 * MIB
    forward = predict(cell.replace(**{"pass": "forward"}), "a100-80gb")
    assert forward.details["memory_by_kind"]["workspace"] == 8_519_680
    assert "workspace" not in predict(cell, "cpu").details["memory_by_kind"]


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("attention", ["s_attn", "d_attn", "himix"])
def test_the_kinds_add_up_to_the_peak(attention, dtype, tmp_path):
    kernel = "sdpa" if dtype == "bfloat16" else "efficient"  # Branches of sdpa are flash's.
    cell = make_cell(
        model=small_model("mistral", tmp_path),
        **{**STEP, "attention": attention, "kernel": kernel},
    )
    for fields in ({}, {"zero": 2, "world_size": 4}, {"checkpoint": True}):
        record = predict(cell.replace(dtype=dtype, **fields), "h100-80gb")
        assert sum(record.details["memory_by_kind"].values()) == record.metrics["peak_bytes"]
        assert record.metrics["reserved_bytes"] >= record.metrics["peak_bytes"]
        assert set(record.details["memory_by_kind"]) <= set(KINDS)
        assert set(record.details["assumed"]) == {"blocks", "workspace", "context", "temporaries"}


def test_logits_are_told_apart_even_from_scores_of_the_same_width(tmp_path):
    model = small_model("mistral", tmp_path, vocab_size=1000)
    cell = make_cell(
        model=model,
        attention="s_attn",
        kernel="eager",
        scope="decoder",
        dtype="float32",
        num_visual=980,
        num_text=20,
        logits="text",
        **{"pass": "train"},
    )
    rows = 20 * 1000 * 4
    found = trace(cell, CARD)
    logits = [b.bytes for b in found.timeline.blocks if b.kind == "logits"]
    assert set(logits) <= {-(-rows // 512) * 512, 512}
    assert 3 <= len(logits) <= 8  # The logits, their log-softmax, and the gradients of both.


def temporaries(kernel, heads=(8, 2), rows=300, size=80, dtype=torch.bfloat16):
    q, k = (torch.empty(1, n, rows, size, device="meta", dtype=dtype) for n in heads)
    return KERNELS[kernel].temporaries(q, q, k, q)


def test_temporaries_follow_the_published_sources():
    row, wide = 4 * 8 * 384, 96  # Float32 rows of eight heads, rounded to 128; 80 rounded to 32.
    shared = 2 * (2 * 8 * 300 * 80)
    copied = 2 * (2 * 8 * 300 * 80)  # Contiguous as [B, H, R, K] is not as [B, R, H, K].
    assert sum(temporaries("flash")) == row + row * wide + shared + copied
    assert temporaries("sdpa") == temporaries("flash")
    assert sum(temporaries("flash_attention_2")) == row + row * wide + shared
    third = 2 * row + row * 96 + 2 * (4 * 2 * 384 * 96)
    assert sum(temporaries("flash_attention_3")) == third
    assert sum(temporaries("cudnn")) == 4 * 8 * 300 * 81 + shared
    assert temporaries("flex") == (4 * 8 * 300,)
    assert temporaries("eager") == temporaries("math") == ()
    # Three tiles of 128 × 128 with a lock each, and a copy of the gradient.
    tiles = 4 * 8 * 3 * (128 * 128 + 4)
    assert sum(temporaries("efficient", (8, 8))) == 4 * 8 * 300 + tiles + copied // 2
    for name in KERNELS:
        assert bool(temporaries(name)) == bool(KERNELS[name].temporaries_from), name
    # Without shared heads nothing is repeated, and rows that follow each other are not copied.
    q = torch.empty(1, 256, 8, 128, device="meta", dtype=torch.bfloat16).transpose(1, 2)
    plain = KERNELS["flash"].temporaries(q, q, q, q)
    assert sum(plain) == 4 * 8 * 256 * 129


def test_temporaries_count_on_cards_alone(tmp_path):
    cell = make_cell(num_visual=4000, **{"pass": "train"})
    assert not [b for b in trace(cell).timeline.blocks if b.kind == "temporaries"]
    card = trace(cell, allocator_of(DEVICES["h100-80gb"]))
    found = [b for b in card.timeline.blocks if b.kind == "temporaries"]
    assert found
    assert all(b.died == b.born + 1 for b in found)


def test_a_file_without_a_workspace_says_so(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "peak_flops: {bfloat16: 1.0e+15, float16: 1.0e+15, float32: 1.0e+14, float64: 1.0e+13}\n"
        "bandwidth_bytes_per_s: 1.0e+12\ntotal_bytes: 80 GiB\ncontext_bytes: 0\n"
    )
    record = predict(make_cell(num_visual=100), str(path))
    assert "workspace" not in record.details["memory_by_kind"]
    assert record.details["assumed"]["workspace"].startswith("not included")
