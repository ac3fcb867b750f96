"""Real checkpoints, written here: loading, D-Attn patched in, generation, and broken files."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.lvlm.test_oracles import relative
from tests.small import small_model
from workbench.errors import RequestError
from workbench.lvlm.build import build
from workbench.lvlm.models import resolve
from workbench.spec import make_cell

FAMILIES = ["mistral", "gemma2", "qwen2"]


@pytest.fixture
def checkpoint(request, tmp_path):
    """A folder with a small model of a family and transformers' own model."""
    return write(getattr(request, "param", "mistral"), tmp_path)


def write(family, tmp_path):
    name = small_model(family, tmp_path)
    resolved = resolve(name)
    torch.manual_seed(3)
    model = resolved.family.causal_lm()(resolved.config).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(name)
    return name, model.eval()


def cell_of(folder, system="s_attn", **fields):
    return make_cell(
        model=folder, weights=folder, attention=system, kernel="eager", dtype="float64",
        **{"scope": "decoder", "num_visual": 11, "num_text": 5, **fields},
    )  # fmt: skip


@pytest.mark.parametrize("checkpoint", FAMILIES, indirect=True)
def test_loaded_weights_compute_what_transformers_does(checkpoint):
    folder, model = checkpoint
    workload = build(cell_of(folder))
    visual, ids = workload.inputs
    (found,) = workload.run_forward()
    text = model.get_input_embeddings()(ids)
    with torch.no_grad():
        expected = model(inputs_embeds=torch.cat([visual, text], 1)).logits
    assert relative(found, expected) <= 1e-5


@pytest.mark.parametrize("checkpoint", FAMILIES, indirect=True)
@pytest.mark.parametrize("system", ["d_attn", "d_attn_full"])
def test_d_attn_is_patched_into_the_loaded_weights(checkpoint, system):
    folder, model = checkpoint
    workload = build(cell_of(folder, system))
    ours = {n.replace(".layer.", "."): p for n, p in workload.module.named_parameters()}
    theirs = dict(model.model.named_parameters())
    assert set(theirs) <= set(ours)
    assert all(torch.equal(ours[name], p) for name, p in theirs.items())


@pytest.mark.parametrize("checkpoint", FAMILIES, indirect=True)
def test_greedy_generation_is_equal_token_for_token(checkpoint):
    folder, _ = checkpoint
    visual = torch.randn(1, 11, 32, dtype=torch.float64)
    generated, scores = {}, {}
    for system in ("s_attn", "d_attn_full"):
        ids = torch.tensor([[1, 5, 9]])
        for _ in range(8):
            module = build(cell_of(folder, system, num_text=ids.shape[1])).module
            with torch.no_grad():
                logits = module(visual, ids)
            ids = torch.cat([ids, logits[:, -1:].argmax(-1)], 1)
        generated[system], scores[system] = ids, logits
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


def test_a_missing_tensor_is_named(checkpoint):
    folder, _ = checkpoint
    rewrite(folder, lambda t: t.pop("model.layers.1.mlp.up_proj.weight"))
    with pytest.raises(RequestError, match=r"missing tensor .*1\.mlp\.up_proj.*mistral"):
        build(cell_of(folder))


def test_a_mis_shaped_tensor_is_named(checkpoint):
    folder, _ = checkpoint
    name = "model.layers.0.self_attn.k_proj.weight"
    rewrite(folder, lambda t: t.update({name: torch.zeros(3, 32)}))
    with pytest.raises(RequestError, match=r"mis-shaped tensor .*k_proj.*expected"):
        build(cell_of(folder))


def test_a_corrupt_file_is_named(checkpoint):
    folder, _ = checkpoint
    with open(f"{folder}/model.safetensors", "wb") as file:
        file.write(b"not tensors at all")
    with pytest.raises(RequestError, match=f"weights '{folder}': cannot be loaded: .+"):
        build(cell_of(folder))


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
