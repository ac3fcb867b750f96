"""Real checkpoints, written here: loading, D-Attn patched in, generation, and broken files."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.lvlm.generation import GREEDY, extend, write_random, write_weights
from tests.lvlm.test_oracles import relative
from tests.small import SIGLIP, small_lvlm, small_model
from workbench.lvlm.build import build
from workbench.lvlm.models import resolve
from workbench.lvlm.towers import siglip
from workbench.probe.measuring.measure import measure
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.protocol import Protocol

QWENS = ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5", "glm4v"]
"""Those of native resolution."""
FAMILIES = ["mistral", "llama", "gemma2", "qwen2", "qwen3", "gemma3", *QWENS]
SEEING = ["llama", "gemma3", *QWENS]
"""Families whose small checkpoint is a whole vision-language model, LLaVA's for llama."""


ONCE = Protocol(min_samples=1, precision=None)


@pytest.fixture
def checkpoint(request, tmp_path):
    """A folder with a small model of a family and transformers' own model."""
    return write(getattr(request, "param", "mistral"), tmp_path)


def write(family, tmp_path):
    """A small checkpoint: of a text model, or of a whole one where the family has only that."""
    name = small_model(family, tmp_path)
    resolved = resolve(name)
    if resolved.family.lm_name.endswith("ForConditionalGeneration"):
        return write_whole(family, tmp_path)
    return name, write_random(name, lambda: resolved.family.causal_lm()(resolved.config))


def write_whole(family, tmp_path):
    name = small_lvlm(family, tmp_path)
    return name, write_weights(name)


def cell_of(folder, system="s_attn", **fields):
    return make_cell(
        model=folder,
        weights=folder,
        attention=system,
        kernel="eager",
        dtype="float64",
        **{"scope": "decoder", "num_visual": 11, "num_text": 5, **fields},
    )


@pytest.mark.parametrize("checkpoint", FAMILIES, indirect=True)
def test_loaded_weights_compute_what_transformers_does(checkpoint):
    folder, model = checkpoint
    workload = build(cell_of(folder))
    visual, ids = workload.inputs
    (found,) = workload.run_forward()
    embed = model.get_input_embeddings()  # Gemma scales here; the decoder scales text alone.
    with torch.no_grad():
        expected = model(inputs_embeds=torch.cat([visual, embed(ids)], 1)).logits
    assert relative(found, expected) <= 1e-5


@pytest.mark.parametrize("checkpoint", FAMILIES, indirect=True)
@pytest.mark.parametrize("system", ["d_attn", "d_attn_full"])
def test_d_attn_is_patched_into_the_loaded_weights(checkpoint, system):
    folder, model = checkpoint
    workload = build(cell_of(folder, system))
    ours = {n.replace(".layer.", "."): p for n, p in workload.module.named_parameters()}
    theirs = dict(getattr(model.model, "language_model", model.model).named_parameters())
    assert set(theirs) <= set(ours)
    assert all(torch.equal(ours[name], p) for name, p in theirs.items())


@pytest.mark.parametrize("checkpoint", FAMILIES, indirect=True)
def test_greedy_generation_is_equal_token_for_token(checkpoint):
    folder, _ = checkpoint
    visual = torch.randn(1, 11, 32, dtype=torch.float64)
    generated, scores = {}, {}
    for system in ("s_attn", "d_attn_full"):

        def of(num, system=system):
            return build(cell_of(folder, system, num_text=num))

        generated[system] = extend(torch.tensor([[1, 5, 9]]), 8, of, visual)
        with torch.no_grad():
            scores[system] = of(11).module(visual, generated[system])
    assert torch.equal(generated["s_attn"], generated["d_attn_full"])
    assert generated["s_attn"].shape == (1, 11)
    # transformers' eager softmax is float32, the streams' is float64.
    assert relative(scores["d_attn_full"], scores["s_attn"]) <= 1e-5


def test_a_single_layer_loads_its_own_weights(checkpoint):
    folder, model = checkpoint
    workload = build(cell_of(folder, scope="layer", layer=1))
    expected = model.model.layers[1].self_attn.q_proj.weight
    assert torch.equal(workload.layers[0][0].attention.q_proj.weight, expected)


def rewrite(folder, change):
    path = f"{folder}/model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def test_a_missing_tensor_is_named_with_its_file(checkpoint):
    folder, _ = checkpoint
    name = "model.layers.1.mlp.up_proj.weight"
    rewrite(folder, lambda t: t.pop(name))
    with pytest.raises(
        RequestError,
        match=rf"^weights '{folder}': model\.safetensors: missing tensor {name} expected \(48, 3",
    ):
        build(cell_of(folder))


def test_a_mis_shaped_tensor_is_named_with_its_file(checkpoint):
    folder, _ = checkpoint
    name = "model.layers.0.self_attn.k_proj.weight"
    rewrite(folder, lambda t: t.update({name: torch.zeros(3, 32)}))
    with pytest.raises(
        RequestError,
        match=rf"model\.safetensors: mis-shaped tensor {name} is \(3, 32\), expected \(16, 32\)$",
    ):
        build(cell_of(folder))


@pytest.mark.parametrize("keep", [0, 5, 3000])
def test_a_truncated_file_is_named(checkpoint, keep):
    folder, _ = checkpoint
    path = Path(folder) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(
        RequestError, match=r"': model\.safetensors: not a whole safetensors file: \w+"
    ):
        build(cell_of(folder))


@pytest.fixture
def shards(tmp_path):
    """A checkpoint in several files, with the index that tells them apart."""
    folder, model = write("mistral", tmp_path)
    (Path(folder) / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="30KB")
    names = sorted(path.name for path in Path(folder).glob("*.safetensors"))
    assert len(names) > 2
    return Path(folder), names


def test_a_cut_off_shard_is_named(shards):
    folder, names = shards
    path = folder / names[1]
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(RequestError, match=f"': {names[1]}: not a whole safetensors file"):
        build(cell_of(str(folder)))


def test_a_lost_shard_is_named(shards):
    folder, names = shards
    (folder / names[2]).unlink()
    with pytest.raises(RequestError, match=rf"': {names[2]}: no such file, expected tensor \w+"):
        build(cell_of(str(folder)))


def test_a_tensor_that_a_shard_lost_is_named_with_it(shards):
    folder, names = shards
    tensors = load_file(folder / names[1])
    lost = sorted(tensors)[0]
    del tensors[lost]
    save_file(tensors, folder / names[1], metadata={"format": "pt"})
    with pytest.raises(RequestError, match=f"': {names[1]}: missing tensor {lost}, which model"):
        build(cell_of(str(folder)))


@pytest.mark.parametrize("text", ["3", "[]", '{"weight_map": 3}'])
def test_a_broken_index_is_named(shards, text):
    folder, _ = shards
    (folder / "model.safetensors.index.json").write_text(text)
    with pytest.raises(RequestError, match=r"index\.json: expected JSON with a weight_map"):
        build(cell_of(str(folder)))


def test_folders_without_a_config_or_weights_are_named(checkpoint, tmp_path):
    folder, _ = checkpoint
    for where, what in ((tmp_path / "nowhere", "config.json"), (tmp_path, "config.json")):
        with pytest.raises(RequestError, match=f"weights '{where}': .*{what}"):
            build(cell_of(folder).replace(weights=str(where)))
    bare = small_model("qwen2", tmp_path)
    with pytest.raises(RequestError, match=r"no weights; expected model\.safetensors"):
        build(cell_of(folder).replace(weights=bare))


def test_a_checkpoint_of_another_size_is_refused(checkpoint, tmp_path):
    folder, _ = checkpoint
    other = small_model("llama", tmp_path, hidden_size=48)
    with pytest.raises(RequestError, match="tensor"):
        build(cell_of(folder).replace(model=other))


def whole_cell(folder, system="s_attn", **fields):
    """Four images of the paper's small tower, or one of Qwen's, before five words."""
    visual = 64 if "llama" in folder or "qwen3" in folder else 16
    return cell_of(folder, system, **{"scope": "lvlm", "num_visual": visual, **fields})


@pytest.mark.parametrize("family", SEEING)
def test_tower_and_projector_are_the_checkpoints(family, tmp_path):
    folder, model = write_whole(family, tmp_path)
    workload = build(whole_cell(folder, "d_attn"))
    sizes = sorted(p.sum().item() for p in model.parameters())
    ours = dict(workload.module.named_parameters())
    norm = None if family in QWENS else ours.pop("adapter.norm.weight", None)
    assert sorted(p.sum().item() for p in ours.values()) == pytest.approx(sizes, abs=1e-12)
    random = [flag for flag in workload.context.flags if flag.startswith("weights: random")]
    assert len(random) == (0 if norm is None else 1)


def test_an_adapter_that_a_reducer_widens_is_random_and_says_so(tmp_path):
    folder, _ = write_whole("llama", tmp_path)
    workload = build(whole_cell(folder, reduce="pixel_shuffle", settings="side=2"))
    (said,) = (flag for flag in workload.context.flags if "adapter" in flag)
    assert said.startswith("weights: random in the adapter: it reads 4 tokens side by side")


def shown(family, model, visual, ids):
    """What transformers' own model takes beside pixels: one square image before the ids."""
    inputs = {"input_ids": torch.cat([torch.full((1, visual), 96), ids], 1)}
    if family == "gemma3":
        model.config.image_token_id = model.model.config.image_token_id = 96
        return inputs
    side = 2 * int(visual**0.5)
    kinds = torch.cat([torch.ones(1, visual), torch.zeros_like(ids)], 1).long()
    return {
        **inputs,
        "image_grid_thw": torch.tensor([[1, side, side]]),
        "mm_token_type_ids": kinds,
    }


@pytest.mark.parametrize("family", ["gemma3", *QWENS])
@pytest.mark.parametrize("system", ["s_attn", "d_attn_full"])
def test_pixels_compute_what_transformers_does(family, system, tmp_path):
    """The whole model, from pixels, with M-RoPE and deepstack where the family has them."""
    folder, model = write_whole(family, tmp_path)
    workload = build(whole_cell(folder, system))
    pixels, ids = workload.inputs
    ids.clamp_(max=90)
    given = shown(family, model, workload.cell.num_visual, ids)
    with torch.no_grad():
        expected = model(pixel_values=pixels, **given).logits
    (found,) = workload.run_forward()
    # Softmax, norms and the tower's rotations are float32 in transformers.
    assert relative(found, expected) <= 1e-4


@pytest.mark.parametrize("family", QWENS)
def test_an_image_is_described_as_transformers_does(family, tmp_path):
    """Greedy generation from pixels, token for token, against ``generate``."""
    folder, model = write_whole(family, tmp_path)
    ids = torch.tensor([[1, 5, 9]])
    workload = build(whole_cell(folder, num_text=3))
    pixels = workload.inputs[0]
    given = shown(family, model, workload.cell.num_visual, ids)
    wanted = model.generate(pixel_values=pixels, **given, max_new_tokens=5, **GREEDY)
    ids = extend(ids, 5, lambda num: build(whole_cell(folder, num_text=num)), pixels)
    assert torch.equal(ids[0], wanted[0, workload.cell.num_visual :])


def test_a_text_checkpoint_leaves_the_tower_random_and_says_so(checkpoint, monkeypatch):
    folder, _ = checkpoint
    small = {key: value for key, value in SIGLIP.items() if key != "model_type"}
    monkeypatch.setattr(siglip.SigLIP, "published", small)
    record = measure(whole_cell(folder, num_visual=32), "cpu", ONCE)
    said = [flag for flag in record.flags if flag.startswith("weights: random in the tower")]
    assert said == [
        f"weights: random in the tower: '{folder}' holds no tower, expected vision_tower.* of a "
        "siglip_vision_model"
    ]


def test_a_missing_tensor_of_the_tower_is_named(tmp_path):
    folder, _ = write_whole("qwen2_5_vl", tmp_path)
    rewrite(folder, lambda t: t.pop("visual.blocks.1.mlp.up_proj.weight"))
    with pytest.raises(RequestError, match=r"missing tensor .*visual\.blocks\.1\.mlp\.up_proj"):
        build(whole_cell(folder))
