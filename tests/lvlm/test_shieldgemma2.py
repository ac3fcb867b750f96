"""ShieldGemma 2: the two logits that its class chooses, its images, and what it does not do."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import ShieldGemma2ForImageClassification
from transformers.models.shieldgemma2.processing_shieldgemma2 import ShieldGemma2Processor

from tests.lvlm.test_oracles import relative
from tests.lvlm.test_wrappers import TOKEN, checkpoint, shown
from workbench.lvlm.build import build
from workbench.lvlm.models import resolve
from workbench.lvlm.towers import tower_of
from workbench.probe.predicting.predict import predict
from workbench.visual import Limits
from workbench.visual.tokens import front_end_of, tokens
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError


def test_its_answer_is_two_of_the_last_row_s_logits(tmp_path):
    """Its own class holds what Gemma 3's whole holds, and no more."""
    name, model = checkpoint("shieldgemma2", tmp_path)
    cell, pictures = shown(tmp_path, [(61, 40), (40, 130)], name, weights=name)
    workload = build(cell, pictures=pictures)
    pixels, ids = workload.inputs
    ids.clamp_(max=90)
    whole = resolve(name).whole
    whole.yes_token_index, whole.no_token_index = 7, 11
    judge = ShieldGemma2ForImageClassification(whole).double().eval()
    judge.model.load_state_dict(model.state_dict())
    assert workload.num_parameters == sum(p.numel() for p in judge.parameters())
    inputs = torch.cat([torch.full((1, cell.num_visual), TOKEN), ids], 1)
    (found,) = workload.run_forward()
    with torch.no_grad():
        answer = judge(input_ids=inputs, pixel_values=pixels)
    chosen = found[:, -1, [7, 11]]
    assert relative(chosen, answer.logits) <= 1e-4
    assert relative(chosen.softmax(-1), answer.probabilities) <= 1e-4


def test_a_tensor_that_its_checkpoint_lacks_is_named(tmp_path):
    name, _ = checkpoint("shieldgemma2", tmp_path)
    file = Path(name, "model.safetensors")
    tensors = load_file(file)
    lost = next(key for key in tensors if key.endswith("layers.1.mlp.up_proj.weight"))
    del tensors[lost]
    save_file(tensors, file, {"format": "pt"})
    cell, pictures = shown(tmp_path, [(61, 40)], name, weights=name)
    with pytest.raises(RequestError, match=r"missing tensor .*layers\.1\.mlp\.up_proj"):
        build(cell, pictures=pictures)


def test_images_are_gemma_3_s_and_never_cut():
    assert ShieldGemma2Processor.images_kwargs["do_pan_and_scan"] is False
    assert tokens("shieldgemma-2-4b", resolution="4000x500")["num_visual"] == 256
    with pytest.raises(RequestError, match="pan_and_scan True: shieldgemma-2 has no such limit"):
        front_end_of("shieldgemma-2-4b", limits=Limits(pan_and_scan=True))
    own, gemma = (tower_of(resolve(name)) for name in ("shieldgemma-2-4b", "gemma-3-4b"))
    image = Image.new("RGB", (900, 300), (9, 40, 200))
    assert torch.equal(own.preprocess([image], 0), gemma.preprocess([image], 0))


def test_predictions_are_gemma_3_s_with_a_flag_of_their_own():
    cell = make_cell(model="shieldgemma-2-4b", scope="lvlm", num_visual=512)
    own, gemma = (predict(cell.replace(model=m), "h100-80gb") for m in (cell.model, "gemma-3-4b"))
    assert own.metrics == gemma.metrics
    flags = set(own.flags) - set(gemma.flags)
    assert any(
        flag.startswith("head: Gemma 3's LM head; that ShieldGemma 2 answers with two")
        for flag in flags
    )
