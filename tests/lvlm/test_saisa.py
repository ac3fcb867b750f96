"""SAISA: chunks are exact, and what its projectors weigh."""

import pytest

from tests.lvlm.test_oracles import assert_equal_to_oracle, small_workload
from workbench.probe.counting.trace import trace
from workbench.vocabulary.cell import make_cell


@pytest.mark.parametrize("family", ["mistral", "gemma3", "qwen2"])
@pytest.mark.parametrize("options", [{"chunk": 7}, {"chunk": 32, "checkpoint": True}])
def test_chunks_are_exact(family, options, tmp_path):
    workload = small_workload(family, tmp_path, "saisa", "eager", layout="T,V,T", **options)
    assert_equal_to_oracle(workload)


def test_projectors_of_vicuna_weigh_what_the_paper_says():
    """671 M on CLIP's 1024 features; on SigLIP's 1152 another 17 M."""
    cell = make_cell(model="vicuna-7b", attention="saisa", scope="decoder", num_visual=9)
    added = trace(cell).params - trace(cell.replace(attention="s_attn")).params
    assert added == 32 * (1152 * 4096 + 4096**2 + 2 * 4096)
    assert added - 32 * 128 * 4096 == 671_350_784


def test_chunks_bound_the_working_set():
    """Without them 4D + 2g elements a token stand while a layer runs."""
    cell = make_cell(attention="saisa", num_visual=50_000, num_text=10, kernel="sdpa")
    whole = trace(cell).timeline.peak()[0]
    chunked = trace(cell.replace(chunk=1024)).timeline.peak()[0]
    assert whole - chunked > 0.9 * 2 * 2 * 4096 * 50_000
