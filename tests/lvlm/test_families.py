"""The catalogue: published sizes, every family present, names resolved."""

import pytest
import torch

from tests.lvlm.oracle import widen_norms
from tests.small import (
    ALIKE,
    CONVOLVING,
    CROSSING,
    EXPERTS,
    FAMILY_NAMES,
    LATENT,
    MIXED,
    small_model,
)
from workbench.lvlm.models import FAMILIES, MODELS, resolve
from workbench.vocabulary.errors import RequestError


def test_every_family_has_a_small_model():
    apart = [*ALIKE, *EXPERTS, *MIXED, *CONVOLVING, *CROSSING, *LATENT]
    assert sorted(FAMILIES) == sorted([*FAMILY_NAMES, *apart])


@pytest.mark.parametrize("family", sorted(ALIKE))
def test_families_that_are_alike_have_the_same_layer(family, tmp_path):
    """Names, shapes and classes of the same forms, and the same output of the same weights.

    Gemma's norms multiply by one more than their weights, and its MLP has another activation;
    GLM-OCR's projections have no biases.
    """
    layers = []
    act = {"hidden_act": "gelu_pytorch_tanh"} if family == "gemma" else {}
    for name in (family, ALIKE[family]):
        model = resolve(small_model(name, tmp_path, **act))
        model.config._attn_implementation = "eager"
        layers.append(model.family.layer(model.config, 0).double())
    one, other = layers
    for layer in layers:
        widen_norms(layer)
    weights = one.state_dict()
    if family == "gemma":
        weights |= {name: 1 + value for name, value in weights.items() if "norm" in name}
    if family == "glm_ocr":
        biases = {n: torch.zeros_like(x) for n, x in other.state_dict().items() if "bias" in n}
        weights |= biases
    other.load_state_dict(weights)
    x, tables = torch.randn(1, 5, 32).double(), (torch.randn(1, 5, 8).double(),) * 2
    first = torch.zeros(1, 5, dtype=torch.int64)  # Where no query is scaled.
    found, wanted = (
        layer(x, position_embeddings=tables, position_ids=first) for layer in (one, other)
    )
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_published_configurations_build_real_layers(name):
    model = resolve(name)
    with torch.device("meta"):
        layer = model.family.layer(model.config, model.global_layer)
    parts = model.family.parts(layer)
    assert parts.hidden_size == model.config.hidden_size
    if model.family.latent:
        assert parts.attention.q_b_proj.out_features == parts.num_heads * parts.head_dim
        return
    queries = (1 + parts.gated) * parts.num_heads * parts.head_dim
    assert parts.attention.q_proj.out_features == queries
    assert parts.attention.k_proj.out_features == parts.num_kv_heads * parts.head_dim
    read_from = ("config.json of ", "text_config of ", "transformers' conversion script of ")
    assert MODELS[name].source.startswith(read_from)


def test_gemma_2_keeps_its_features():
    model = resolve("gemma-2-9b")
    with torch.device("meta"):
        local, whole = (model.family.layer(model.config, i) for i in (0, 1))
    assert model.family.parts(local).window == 4096
    assert model.family.parts(whole).window is None
    assert model.family.parts(whole).softcap == 50.0
    assert model.global_layer == 1
    assert model.family.parts(whole).post_mlp_norm is not None


def test_an_unknown_model_lists_the_near_names():
    with pytest.raises(RequestError, match=r"mistral-7b-v0\.3"):
        resolve("mistral-7b-v0.4")


def test_a_folder_without_a_config_is_named(tmp_path):
    with pytest.raises(RequestError, match=r"no config\.json"):
        resolve(str(tmp_path))
    with pytest.raises(RequestError, match="no such folder"):
        resolve("/nonexistent/folder")


def test_a_folder_of_another_family_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(RequestError, match="'bert' is not a supported family"):
        resolve(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "blip-2"}')
    with pytest.raises(RequestError, match="'blip-2', whose text model is 'opt', is not a supp"):
        resolve(str(tmp_path))


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_a_local_folder_resolves_to_its_family(family, tmp_path):
    assert resolve(small_model(family, tmp_path)).family is FAMILIES[family]


def test_a_model_is_what_its_file_says_now(tmp_path):
    """Though a file's text is read once: one that changed, and who writes into what it made."""
    folder, other = tmp_path / "a", tmp_path / "b"
    first = resolve(small_model("mistral", folder))
    first.config.hidden_size = 1
    second = resolve(small_model("mistral", other))
    assert (first.name, second.name) == (str(folder / "mistral"), str(other / "mistral"))
    assert second.config.hidden_size == 32
    assert resolve(small_model("mistral", folder, hidden_size=64)).config.hidden_size == 64
    for path in (folder, other):
        (path / "mistral/config.json").write_text('{"model_type": "bert"}')
        with pytest.raises(RequestError, match=f"^model '{path}/mistral': model_type 'bert'"):
            resolve(f"{path}/mistral")
