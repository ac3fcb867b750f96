"""Each system's closed-form cost against what the counter and the module say, exactly."""

import pytest

from tests.lvlm.definitions import assert_refused, definition, settings_of
from tests.lvlm.oracle import near, visibility
from tests.small import LAYER_SYSTEMS, small_model
from workbench.lvlm.attention import STREAM_OPTIONS, SYSTEMS, system_of
from workbench.lvlm.build import build
from workbench.lvlm.layout import Chunk, Layout, causal_pairs
from workbench.lvlm.places import places_of
from workbench.probe.counting.trace import trace
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError, Unsupported

LAYER_PARAMETERS = 218_112_000
"""Of a Mistral 7B layer: 2·4096² + 2·4096·1024 + 3·4096·14336 + 2·4096."""


def counted(cell):
    """FLOPs by the counter, which must be those of the system's closed form."""
    found = trace(cell)
    assert found.flops == found.model_flops
    assert found.flops > 0 or not cell.num_visual  # An inserted layer without an image.
    return found.flops


def small_cell(family, folder, **fields):
    return make_cell(
        model=small_model(family, folder),
        settings=settings_of(str(fields.get("attention", "s_attn"))),
        **{"kernel": "eager", "num_visual": 63, "num_text": 7, "dtype": "float32", **fields},
    )


@pytest.mark.parametrize("family", ["mistral", "gemma2", "llama4"])
@pytest.mark.parametrize("system", LAYER_SYSTEMS)
@pytest.mark.parametrize("layout", ["V,T", "T,V,T"])
@pytest.mark.parametrize(("visual", "text", "batch"), [(63, 7, 2), (0, 5, 1), (5, 1, 3)])
def test_closed_form_equals_the_counter(family, system, layout, visual, text, batch, tmp_path):
    kernels = ("eager", "sdpa") if family == "mistral" else ("eager",)
    for kernel in kernels:
        cell = small_cell(
            family,
            tmp_path,
            attention=system,
            kernel=kernel,
            layout=layout,
            num_visual=visual,
            num_text=text,
            batch=batch,
        )
        try:
            counted(cell)
            counted(cell.replace(layer=1))
        except Unsupported as error:
            assert_refused(error, system, family)


@pytest.mark.parametrize("system", LAYER_SYSTEMS)
@pytest.mark.parametrize(
    ("option", "on", "off"), [("fold", True, False), ("chunk", 16, None), ("tiled", True, False)]
)
def test_closed_form_under_options(system, option, on, off, tmp_path):
    cell = small_cell("mistral", tmp_path, attention=system)
    if option not in SYSTEMS[system].options:
        with pytest.raises(RequestError, match=f"{option}: {system} has no such option"):
            trace(cell.replace(**{option: on}))
        return
    difference = counted(cell) - counted(cell.replace(**{option: on}))
    # Folding leaves out W_o's columns of repeated heads: 63 tokens, D 32, 4 heads over 2, K 8.
    assert difference == (63 * 2 * 32 * 8 * 2 if option == "fold" else 0)


def test_every_option_belongs_to_a_system():
    assert {name for system in SYSTEMS.values() for name in system.options} <= set(STREAM_OPTIONS)


@pytest.mark.parametrize("family", ["mistral", "gemma2", "llama4"])
@pytest.mark.parametrize("system", LAYER_SYSTEMS)
def test_extra_parameters_are_what_the_module_adds(family, system, tmp_path):
    cell = small_cell(family, tmp_path, attention=system)
    for layer in (None, 1):
        try:
            workload = build(cell.replace(layer=layer))
        except Unsupported as error:
            assert_refused(error, system, family)
            return
        index = workload.layers[0][1].index
        plain = build(cell.replace(attention="s_attn", settings=None, layer=index))
        added = workload.num_parameters - plain.num_parameters
        assert added == workload.system.extra_parameters(*workload.layers[0][:2])


@pytest.mark.parametrize(
    ("system", "extra"),
    [
        ("s_attn", 0),
        ("d_attn", 0),
        ("d_attn_sum", 0),
        ("d_attn_tanh", 1),
        ("d_attn_sigmoid", 1),
        ("d_attn_cascade", 41_943_040),
        ("himix", 1152 + 2 * 1152 * 1024),
        ("gated_xattn", 2 * 128 + 2),
        ("cross_lmm", 2 * (4096**2 + 2 * 4096 * 1024) + 2),
        ("hyper_attn", 2 * 4096 * 1024 + 2 * 1024),
        ("saisa", 1152 * 4096 + 4096**2 + 2 * 4096),
    ],
)
def test_parameters_of_a_mistral_layer(system, extra):
    assert trace(make_cell(attention=system, num_visual=9)).params == LAYER_PARAMETERS + extra


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
@pytest.mark.parametrize("tokens", [1, 63, 1024, 131_072])
def test_s_attn_on_mistral(kernel, tokens):
    cell = make_cell(kernel=kernel, num_visual=tokens - 1, num_text=1)
    assert trace(cell).flops == 436_207_616 * tokens + 16_384 * tokens**2


@pytest.mark.parametrize(("fold", "visual"), [(False, 402_653_184), (True, 377_487_360)])
def test_d_attn_on_mistral(fold, visual):
    cell = make_cell(attention="d_attn", num_visual=1000, num_text=100, fold=fold)
    pairs = 100 * 100 + 100 * 1000
    assert trace(cell).flops == 1000 * visual + 100 * 436_207_616 + 16_384 * pairs


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        ("mistral-7b-v0.3", 7_248_023_552),
        ("gemma-2-9b", 9_241_705_984),
        ("llama-2-7b", 6_738_415_616),
        ("vicuna-7b", 6_738_415_616),
        ("llama-3.1-8b", 8_030_261_248),
        ("llama-3.2-1b", 1_235_814_400),
        ("llama-3.2-3b", 3_212_749_824),
        ("tinyllama-1.1b", 1_100_048_384),
        ("qwen2-0.5b", 494_032_768),
        ("qwen2-7b", 7_615_616_512),
    ],
)
def test_parameters_of_whole_decoders(model, parameters):
    cell = make_cell(model=model, scope="decoder", kernel="eager", num_visual=3, num_text=2)
    assert trace(cell).params == parameters


@pytest.mark.parametrize(
    ("system", "extra"),
    [
        ("d_attn", 0),
        ("d_attn_cascade", 1_342_177_280),
        ("d_attn_tanh", 32),
        ("gated_xattn", 8 * 218_112_258),
    ],
)
def test_parameters_that_systems_add_to_mistral(system, extra):
    cell = make_cell(scope="decoder", attention=system, num_visual=3, num_text=2)
    assert trace(cell).params == 7_248_023_552 + extra


def places_under_test(name, layout):
    """The system under its definition's settings, and one place of each of its roles."""
    cell = make_cell(
        num_visual=layout.num_visual,
        num_text=layout.num_text,
        layout=layout.pattern,
        attention=name,
        settings=settings_of(name),
        scope="decoder",
    )
    return system_of(cell), {place.kind: place for place in reversed(places_of(cell))}.values()


def brute_force(name, place, window):
    """Allowed pairs of a system, counted one by one."""
    defined = definition(name)
    if defined is not None:
        return defined.allowed_pairs(place, window)
    layout = place.layout
    if name in ("s_attn", "d_attn_full"):
        return int(visibility(layout, window, False).sum())
    if name == "d_attn_biased":
        return int(visibility(layout, window, True).sum()) - layout.num_visual
    text, visual = layout.positions(visual=False), layout.positions(visual=True)
    own = (text[:, None] >= text) & near(text[:, None], text, window)
    return int(own.sum() + (visual[None, :] < text[:, None]).sum())


@pytest.mark.parametrize("system", sorted(SYSTEMS))
@pytest.mark.parametrize("pattern", ["V,T", "T,V,T", "V,T,V,T"])
@pytest.mark.parametrize(
    "window", [None, 1, 4, 17, 100, Chunk(1), Chunk(4), Chunk(17), Chunk(100)], ids=repr
)
def test_pairs_equal_a_brute_force_mask(system, pattern, window):
    for visual, text in ((0, 5), (5, 2), (13, 8), (31, 30)):
        layout = Layout(visual, text, pattern)
        under_test, places = places_under_test(system, layout)
        for place in places:
            pairs = under_test.pairs(place, window)
            assert pairs.allowed == brute_force(system, place, window)
            assert pairs.dense >= pairs.allowed


def test_causal_pairs_from_any_first_row():
    for rows in (1, 5, 20):
        for first in (0, 3, 30):
            for window in (None, 1, 4, 25, 100):
                expected = sum(min(i + 1, window or i + 1) for i in range(first, first + rows))
                assert causal_pairs(rows, window, first) == expected


@pytest.mark.parametrize("system", sorted(SYSTEMS))
@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
def test_hidden_pairs_of_a_step_whose_loss_reads_text_alone(system, kernel, tmp_path):
    """Nothing reads the last layer's visual rows: some of its branches have no backward."""
    cell = small_cell(
        "mistral",
        tmp_path,
        attention=system,
        kernel=kernel,
        scope="decoder",
        logits="text",
        layout="V,T,V,T",
        **{"pass": "train"},
    )
    if (system, kernel) == ("cmai", "sdpa"):
        with pytest.raises(Unsupported, match="cmai needs explicit scores"):
            trace(cell)
        return
    found = trace(cell)
    prefill = trace(cell.replace(**{"pass": "forward"}))
    hidden = prefill.flops - prefill.flops_causal
    assert hidden == prefill.model_flops - prefill.model_flops_causal
    # A backward has 2 matmuls for each of the forward, a fused one 5 for 2; or none at all.
    share = (found.flops - found.flops_causal) / hidden
    assert share <= (3 if kernel == "eager" else 3.5)
    assert share >= 1 + (1 if kernel == "eager" else 1.25)
