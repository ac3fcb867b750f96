"""Vision towers: transformers' own numbers, closed-form costs, positions, and which |V| can be."""

from types import SimpleNamespace

import pytest
import torch
from transformers import (
    CONFIG_MAPPING,
    AutoModelForImageTextToText,
)
from transformers.models.glm4v.modeling_glm4v import Glm4vModel
from transformers.models.glm_ocr.modeling_glm_ocr import GlmOcrModel
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLModel
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VLModel
from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5Model
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLModel

from tests.fake_tensors import fake_tensors
from tests.lvlm.oracle import widen_norms
from tests.lvlm.test_oracles import relative
from tests.small import TOWERS as SMALL
from tests.small import WRAPPERS, small_lvlm
from workbench.lvlm.build import build
from workbench.lvlm.layout import Layout
from workbench.lvlm.models import MODELS, Model, resolve
from workbench.lvlm.towers import PAPER, TOWERS, Grid, own_tower, tower_of
from workbench.probe.counting.trace import trace
from workbench.probe.measuring.measure import measure
from workbench.probe.predicting.predict import predict
from workbench.visual.tokens import default_vision
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError, Unsupported
from workbench.vocabulary.protocol import Protocol
from workbench.vocabulary.record import Status

IMAGES = {
    "qwen2_5_vl": 512,
    "qwen2_vl": 512,
    "qwen3_vl": 512,
    "qwen2_5_omni": 512,
    "qwen3_5": 512,
    "glm4v": 512,
    "glm_ocr": 512,
    "gemma3": 120,
    "mistral": 320,
}
"""|V| of a few images of each small tower."""


def cell_of(family, folder, layers=2, **fields):
    kinds = {"layer_types": (["sliding_attention", "full_attention"] * 4)[:layers]}
    extra = kinds if family == "gemma3" else {}
    return make_cell(
        model=small_lvlm(family, folder, num_hidden_layers=layers, **extra),
        **{
            "scope": "lvlm",
            "num_visual": IMAGES[family],
            "num_text": 7,
            "kernel": "eager",
            "dtype": "float32",
            "attention": "d_attn",
            **fields,
        },
    )


PUBLISHED_SIZES = {
    "gemma-3-4b": 4_300_079_472,
    "gemma-3-12b": 12_187_325_040,
    "gemma-3-27b": 27_432_406_640,
    "glm-4.1v-9b": 10_292_777_472,
    "glm-4.5v": 107_710_927_360,
    "qwen2.5-vl-3b": 3_754_622_976,
    "qwen2.5-vl-7b": 8_292_166_656,
    "qwen2.5-vl-32b": 33_452_718_336,
    "qwen2.5-vl-72b": 73_410_777_344,
    "qwen2-vl-2b": 2_208_985_600,
    "qwen2-vl-7b": 8_291_375_616,
    "qwen2-vl-72b": 73_405_560_320,
    "qwen3-vl-2b": 2_127_532_032,
    "qwen3-vl-4b": 4_437_815_808,
    "qwen3-vl-8b": 8_767_123_696,
    "qwen3-vl-32b": 33_357_390_064,
    "qwen3-vl-30b-a3b": 31_070_754_032,
    "qwen3-vl-235b-a22b": 235_670_022_896,
    "qwen3.5-2b": 2_213_241_664,
    "qwen3.5-4b": 4_539_265_536,
    "qwen3.5-9b": 9_409_813_744,
    "qwen3.5-27b": 27_356_728_560,
    "qwen3.5-35b-a3b": 35_107_181_936,
    "qwen3.5-397b-a17b": 396_802_360_816,
}
"""Parameters of transformers' own models of the published configurations."""


def decoder_of(whole):
    """Parameters of transformers' own decoder and head, tied ones once."""
    found = [*whole.get_decoder().parameters(), whole.get_output_embeddings().weight]
    return {id(p): p for p in found}.values()


@pytest.mark.parametrize("name", sorted(PUBLISHED_SIZES))
def test_parameters_of_every_size_are_those_of_transformers_own_model(name):
    """Of the whole model and of its decoder, which has no tower and no adapter."""
    model = resolve(name)
    with torch.device("meta"):
        theirs = AutoModelForImageTextToText.from_config(model.whole)
    visual = tower_of(model).tokens_each
    cell = make_cell(model=name, scope="lvlm", num_visual=visual, kernel="eager")
    parts = trace(cell).params_by_component
    total = sum(p.numel() for p in theirs.parameters())
    assert sum(parts.values()) == total == PUBLISHED_SIZES[name]
    assert parts["decoder"] == sum(p.numel() for p in decoder_of(theirs))
    assert trace(cell.replace(scope="decoder")).params == parts["decoder"]


QWENS = sorted(family for family in IMAGES if family not in ("gemma3", "mistral"))
"""Those of native resolution, whose towers share what qwen_vl.py has."""


GRIDS = [
    (Grid(1, 32, 32),),
    (Grid(1, 2, 2),),
    (Grid(1, 18, 26), Grid(1, 18, 26), Grid(1, 10, 4)),
    (Grid(3, 12, 20, 1.0), Grid(1, 8, 8)),
]


@pytest.mark.parametrize("family", QWENS)
@pytest.mark.parametrize("grids", GRIDS)
def test_qwens_tower_equals_transformers_forward(family, grids, tmp_path):
    """Windows of one size in one call, against a call a window; rotations are in float32."""
    cell = cell_of(family, tmp_path, dtype="float64", kernel="sdpa", batch=2)
    tower = tower_of(resolve(cell.model))
    context = build(cell.replace(num_visual=0)).context
    ours, adapter = tower.build(context, grids, True)
    theirs = tower.family.from_transformers(tower.model_class)(tower.config).double()
    named = [
        *ours.named_parameters(),
        *adapter.named_parameters("merger" if family in ("qwen2_vl", "qwen3_5") else ""),
    ]
    weights = [(their_name(name), value) for name, value in named]
    theirs.load_state_dict(dict(weights))
    for module in (ours, adapter, theirs):
        widen_norms(module)
    pixels = torch.randn(tower.pixels(2, grids), dtype=torch.float64)
    made = adapter(ours(pixels))
    found = [made] if isinstance(made, torch.Tensor) else [*made]
    sizes = torch.tensor([grid[:3] for grid in grids * 2])
    if family in ("glm4v", "glm_ocr"):  # As its get_video_features has it.
        sizes = sizes.repeat_interleave(sizes[:, 0], 0)
        sizes[:, 0] = 1
    output = theirs(pixels, grid_thw=sizes)
    wanted = [output.pooler_output, *getattr(output, "deepstack_features", [])]
    assert len(found) == len(wanted) == 1 + len(tower.stacked)
    upstream = []
    for mine, other in zip(found, wanted, strict=True):
        assert mine.shape == (2 * sum(map(tower.tokens, grids)), 32)
        assert relative(mine, other) <= 1e-6
        upstream.append(torch.randn_like(mine))
    torch.autograd.backward(found, upstream)
    torch.autograd.backward(wanted, upstream)
    by_name = dict(theirs.named_parameters())
    for name, value in weights:
        assert relative(value.grad, by_name[name].grad) <= 1e-5


def their_name(name):
    """transformers' word for a weight of a tower or adapter of ours."""
    name = name.replace(".inner.", ".").replace("places.table", "pos_embed")
    return name.replace("deepstack.", "deepstack_merger_list.")


@pytest.mark.parametrize("family", QWENS)
@pytest.mark.parametrize("grids", GRIDS)
def test_closed_forms_of_any_images(family, grids, tmp_path):
    from torch.utils.flop_counter import FlopCounterMode

    cell = cell_of(family, tmp_path)
    tower = tower_of(resolve(cell.model))
    context = build(cell.replace(num_visual=0)).context
    ours, adapter = tower.build(context, grids, True)
    pixels = torch.randn(tower.pixels(1, grids))
    with torch.no_grad():
        for module, flops in ((ours, tower.tower_flops), (adapter, tower.adapter_flops)):
            with FlopCounterMode(display=False) as counter:
                pixels = module(pixels)
            assert counter.get_total_flops() == flops(grids) > 0


@pytest.mark.parametrize(
    ("family", "kernel"), [*((f, "eager") for f in sorted(IMAGES)), ("qwen2_5_vl", "sdpa")]
)
@pytest.mark.parametrize("pass_", ["forward", "train"])
def test_costs_of_the_parts(family, kernel, pass_, tmp_path):
    cell = cell_of(family, tmp_path, kernel=kernel, batch=2, **{"pass": pass_})
    found, decoder = trace(cell), trace(cell.replace(scope="decoder"))
    tower = tower_of(resolve(cell.model))
    grids = tower.grids(cell.num_visual)
    outside = 2 * (tower.tower_flops(grids) + tower.adapter_flops(grids))
    if pass_ == "train":
        outside = 3 * outside - 2 * tower.patch_flops(grids)
    assert found.model_flops - decoder.model_flops == outside
    if pass_ == "forward" or kernel == "eager":
        assert found.flops == found.model_flops
    assert found.flops_causal - decoder.flops_causal == found.flops - decoder.flops


@pytest.mark.parametrize(
    ("family", "layers"),
    [
        ("mistral", 4),
        ("qwen2_5_vl", 4),
        ("qwen3_vl", 7),
        ("qwen3_5", 4),
        ("glm4v", 4),
        ("gemma3", 7),
    ],
)
def test_predictions_of_the_whole_model(family, layers, tmp_path):
    """Composed equals layer by layer, meta equals fake, and the CPU allocator agrees."""
    fields = {"pass": "train", "checkpoint": family not in ("qwen2_5_vl", "qwen2_vl")}
    cell = cell_of(family, tmp_path, layers, **fields)
    composed, whole = trace(cell), trace(cell, compose=False)
    others = [whole]
    if family == "qwen2_5_vl":
        others.append(trace(cell, compose=False, world=fake_tensors))
    for other in others:
        assert composed.timeline.peak()[0] == other.timeline.peak()[0]
        assert (composed.operators == other.operators) is True
    once = Protocol(min_samples=1, precision=None)
    measured, predicted = measure(cell, "cpu", once), predict(cell, "cpu")
    assert measured.status == predicted.status == Status.OK
    assert measured.metrics["flops"] == predicted.metrics["flops"]
    ratio = predicted.metrics["peak_bytes"] / measured.metrics["peak_bytes"]
    # oneDNN reorders what the patch embeddings of SigLIP and GLM convolve; Qwen's is a matmul.
    assert ratio == pytest.approx(1, abs=0.001 if family.startswith("qwen") else 0.05)


@pytest.mark.parametrize(
    ("pattern", "grids"),
    [
        ("V,T", [Grid(1, 32, 24)]),
        ("T,V,T", [Grid(1, 24, 32)]),
        ("V,T,V,T", [Grid(1, 16, 24), Grid(1, 12, 32)]),
        ("V,T", [Grid(3, 4, 4, 1.5)]),
    ],
)
def test_qwens_positions_are_transformers_own(pattern, grids, tmp_path):
    tower = tower_of(resolve(small_lvlm("qwen2_5_vl", tmp_path)))
    layout = Layout(sum(map(tower.tokens, grids)), 11, pattern)
    video = grids[0].seconds is not None
    kinds = torch.full((1, layout.length), 2 if video else 1)
    kinds[0, layout.positions(visual=False)] = 0
    sizes = torch.tensor([grid[:3] for grid in grids])
    times = [grids[0].seconds] if video else None
    theirs = SimpleNamespace(config=SimpleNamespace(vision_config=tower.config))
    theirs.get_vision_position_ids = Qwen2_5_VLModel.get_vision_position_ids.__get__(theirs)
    places, _ = Qwen2_5_VLModel.get_rope_index(
        theirs, kinds, kinds, sizes, sizes, second_per_grid_ts=times
    )
    assert torch.equal(tower.positions(layout, tuple(grids)), places[:, 0])


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen3_vl", "qwen3_5", "glm4v", "glm_ocr"])
@pytest.mark.parametrize("kind", [1, 2])
def test_positions_of_the_other_qwens_are_transformers_own(family, kind, tmp_path):
    """Two images, or a video of two steps: one grid in Qwen2-VL, two between text elsewhere."""
    tower = tower_of(resolve(small_lvlm(family, tmp_path)))
    models = {"qwen2_vl": Qwen2VLModel, "qwen3_vl": Qwen3VLModel, "glm4v": Glm4vModel}
    models["glm_ocr"] = GlmOcrModel
    model = models.get(family, Qwen3_5Model)
    whole = kind == 2 and family == "qwen2_vl"
    grids = (Grid(2, 12, 16, 0.5),) if whole else (Grid(1, 12, 16), Grid(1, 12, 16))
    layout = Layout(2 * 48, 11, "T,V,T" if whole else "T,V,T,V,T")
    kinds = torch.full((1, layout.length), kind)
    kinds[0, layout.positions(visual=False)] = 0
    sizes = torch.tensor([grid[:3] for grid in grids])
    if kind == 2:
        sizes = torch.tensor([[2, 12, 16]])
    theirs = SimpleNamespace(config=SimpleNamespace(vision_config=tower.config))
    theirs.get_vision_position_ids = model.get_vision_position_ids.__get__(theirs)
    given = {"image_grid_thw": sizes} if kind == 1 else {"video_grid_thw": sizes}
    places, _ = model.get_rope_index(theirs, kinds, kinds, **given)
    assert torch.equal(tower.positions(layout, grids), places[:, 0])


def test_a_segment_holds_whole_images(tmp_path):
    cell = cell_of("qwen2_5_vl", tmp_path, num_visual=1024, layout="V,T,V,T")
    with pytest.raises(RequestError, match=r"layout 'V,T,V,T': .* 512 tokens is no whole number"):
        build(cell)


@pytest.mark.parametrize(
    ("visual", "near"),
    [(1000, None), (1021, (1020, 1022)), (1025, (1024, 2048)), (3, (0, 4)), (2048, None)],
)
def test_which_numbers_of_tokens_qwen_can_have(visual, near):
    tower = tower_of(resolve("qwen2.5-vl-7b"))
    if near is None:
        assert sum(map(tower.tokens, tower.grids(visual))) == visual
        return
    with pytest.raises(RequestError, match=f"nearest are {near[0]} and {near[1]}$"):
        tower.grids(visual)
    assert all(tower.grids(n) or n == 0 for n in near)


def test_gemma_makes_256_tokens_an_image():
    tower = tower_of(resolve("gemma-3-4b"))
    assert tower.pixels(2, tower.grids(768)) == (6, 3, 896, 896)
    with pytest.raises(RequestError, match="256 tokens an image; the nearest are 768 and 1024"):
        tower.grids(1000)


@pytest.mark.parametrize("attention", ["himix", "saisa"])
def test_features_keep_the_width_of_gemmas_tower_and_cannot_on_qwen(attention, tmp_path):
    cell = make_cell(
        model="gemma-3-4b", attention=attention, scope="lvlm", num_visual=256, kernel="eager"
    )
    assert trace(cell).params_by_component["tower"] == 416_866_032
    qwen = cell_of("qwen2_5_vl", tmp_path, attention=attention)
    with pytest.raises(Unsupported, match=rf"{attention} keeps .* tower of qwen2\.5-vl"):
        build(qwen)


ALONE = (
    "fast_vlm",
    "gemma3n",
    "glm46v",
    "kimi_k25",
    "lfm2_vl",
    "minicpmv4_7",
    "molmo2",
    "perception_lm",
    "phi4_multimodal",
)
"""GLM-4.6V and MiniCPM-V 4.7 are parts of others under another name, Molmo 2's images come with
indices, Phi-4-multimodal has no section of sizes, Kimi K2.5's and LFM2-VL's images keep their
shapes, towers of Gemma 3n, FastVLM and PerceptionLM are of timm: each has a file of its own."""


def test_every_tower_belongs_to_a_model_type_and_has_a_small_one():
    """A config's tower is found by its outer model type and its kind, and by nothing else."""
    pairs = [(o, kind) for t in TOWERS.values() for o, kinds in t.serves.items() for kind in kinds]
    assert len(pairs) == len(set(pairs))
    for name, tower in TOWERS.items():
        assert bool(tower.serves) == (name != PAPER)
        assert all(outer in CONFIG_MAPPING for outer in tower.serves)
    small = {fields["model_type"] for fields in SMALL.values()} | set(WRAPPERS)
    for name, tower in TOWERS.items():
        assert name in (PAPER, *ALONE) or small & set(tower.serves), name


@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_catalogue_model_names_its_tower(name):
    """The tower's front end is the one that ``workbench tokens`` takes for the same name."""
    tower = tower_of(resolve(name))
    assert tower is not None
    assert tower.front_end == default_vision(name)
    kind = resolve(name).family.model_type
    own = kind.endswith(("_text", "_text_model")) or kind in ALONE
    assert (MODELS[name].tower == PAPER) == (not own)


def test_a_model_takes_the_tower_that_it_names(monkeypatch):
    """Not one that begins as its family's name does."""
    fields = MODELS["gemma-3-4b"].fields
    monkeypatch.setitem(MODELS._load(), "gemma-3-text", Model("gemma3", fields))
    tower = tower_of(resolve("gemma-3-text"))
    assert type(tower) is TOWERS[PAPER]
    named = Model("gemma2", MODELS["gemma-2-9b"].fields, tower="gemma3")
    monkeypatch.setitem(MODELS._load(), "gemma-2-seeing", named)
    assert own_tower(resolve("gemma-2-seeing")) == "gemma3"


@pytest.mark.parametrize("system", ["s_attn", "d_attn", "d_attn_full"])
def test_a_decode_step_stands_after_the_image(system, tmp_path):
    """M-RoPE: the next token's position follows the grid, not the number of tokens."""
    workload = build(cell_of("qwen2_5_vl", tmp_path, attention=system, **{"pass": "decode"}))
    # One image of 16 × 32 tokens, then 7 of text.
    assert int(workload.context._positions("next")) == 32 + 7
    assert torch.isfinite(workload.run_forward()[0]).all()


@pytest.mark.parametrize("family", sorted(IMAGES))
@pytest.mark.parametrize("frozen", ["tower", "adapter", "tower,adapter"])
def test_what_a_frozen_part_leaves_out(family, frozen, tmp_path):
    """Closed form equals the count: no gradient of frozen weights, none of what feeds nothing."""
    cell = cell_of(family, tmp_path, frozen=frozen, **{"pass": "train"})
    found = trace(cell)
    assert found.flops == found.model_flops < trace(cell.replace(frozen=None)).flops
