"""Configurations from outside: what was built is what the file states, or it is refused."""

import ast
import io
import json
import random
import re
import sys
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import CONFIG_MAPPING, AutoModelForImageTextToText
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
from transformers.utils import is_timm_available

from tests.small import OWN, SHARED, TOWERS
from workbench import cli
from workbench.inputs.model_files import MAX_BYTES
from workbench.lvlm.build import build
from workbench.lvlm.configs import silent
from workbench.lvlm.configs.fields import SIZES
from workbench.lvlm.models import FAMILIES, resolve
from workbench.lvlm.parts.rope import rope_types
from workbench.probe.counting.trace import trace
from workbench.probe.predicting.predict import predict
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError

TEXTS = {
    "llama": {"model_type": "llama"},
    "qwen2": {"model_type": "qwen2"},
    "mistral": {"model_type": "mistral", "head_dim": 8},
    "gemma3_text": {"model_type": "gemma3_text", **OWN["gemma3"]},
    "qwen2_5_vl_text": {"model_type": "qwen2_5_vl_text", **OWN["qwen2_5_vl"]},
}


def wrappers():
    """Every wrapper of transformers whose text model may be, or is, of a supported family."""
    found = {}
    for name in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        kind = CONFIG_MAPPING[name]
        own = getattr(kind, "sub_configs", {}).get("text_config")
        if own is None or (name in ("fast_vlm", "perception_lm") and not is_timm_available()):
            continue
        with silent():
            text = kind().get_text_config().model_type
        if text in TEXTS:
            found[name] = [text] if getattr(own, "model_type", "") == text else ["llama", "qwen2"]
    return found


WRAPPERS = wrappers()


def write(folder, **fields):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(fields))
    return str(folder)


def sizes(seed):
    """Sizes of a small decoder, no two models alike."""
    draw = random.Random(seed)
    heads, head = draw.choice([2, 4, 6]), draw.choice([4, 8, 10])
    return {
        "vocab_size": draw.randrange(90, 400),
        "hidden_size": heads * head,
        "intermediate_size": draw.randrange(20, 90),
        "num_hidden_layers": draw.randrange(2, 5),
        "num_attention_heads": heads,
        "num_key_value_heads": draw.choice([1, 2, heads]),
    }


def text_of(kind, seed):
    own = {**TEXTS[kind], **sizes(seed), "tie_word_embeddings": bool(seed % 2)}
    if kind == "gemma3_text":
        kinds = ["full_attention", "sliding_attention"] * 2
        own["layer_types"] = kinds[: own["num_hidden_layers"]]
        own["head_dim"] = 8
    if kind == "qwen2_5_vl_text":
        own |= {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2}
    if kind == "mistral":
        own["head_dim"] = own["hidden_size"] // own["num_attention_heads"]
    return own


def decoder_params(name, **fields):
    return trace(
        make_cell(model=name, scope="decoder", kernel="eager", num_visual=8, num_text=3, **fields)
    ).params


def whole_params(config):
    """Parameters of transformers' own decoder and head inside the whole model, tied ones once."""
    with torch.device("meta"), silent():
        whole = AutoModelForImageTextToText.from_config(config)
    parameters = [*whole.get_decoder().parameters(), whole.get_output_embeddings().weight]
    return sum(p.numel() for p in {id(p): p for p in parameters}.values())


def test_there_are_many_wrappers():
    known = "llava llava_next llava_onevision internvl idefics3 mistral3 gemma3 qwen2_5_vl smolvlm"
    assert set(known.split()) <= set(WRAPPERS)


@pytest.mark.parametrize("wrapper", sorted(WRAPPERS))
def test_parameters_are_those_of_transformers_own_model(wrapper, tmp_path):
    """Random sizes, stated in the text model's section, tied or not as the whole says."""
    seed = sum(map(ord, wrapper))
    for number, text in enumerate(WRAPPERS[wrapper]):
        tied = bool((seed + number) % 2)
        inner = {**text_of(text, seed + number), "tie_word_embeddings": tied}
        kind = CONFIG_MAPPING[wrapper]  # Ovis2 sizes its LM head by fields outside the text model.
        own = {f: inner[f] for f in SIZES if f in inner and hasattr(kind, f)}
        name = write(
            tmp_path / text, model_type=wrapper, tie_word_embeddings=tied, text_config=inner, **own
        )
        config = resolve(name).whole
        assert decoder_params(name) == whole_params(config)


@pytest.mark.parametrize("wrapper", sorted(WRAPPERS))
def test_sizes_that_stand_flat_are_read_or_refused(wrapper, tmp_path):
    seed = sum(map(ord, wrapper)) + 5
    text = WRAPPERS[wrapper][0]
    flat = {**text_of(text, seed), "model_type": wrapper}
    name = write(tmp_path / "flat", **flat)
    nested = write(tmp_path / "text", **{**flat, "model_type": text})
    refusal, found = None, None
    try:
        found = decoder_params(name)
    except RequestError as error:
        refusal = str(error)
    if refusal is None:
        assert found == decoder_params(nested)
    else:
        assert re.search("config.json states .* builds", refusal)


@pytest.mark.parametrize("section", ["llm_config", "language_config", "decoder_config"])
def test_a_section_that_nothing_reads_is_refused(section, tmp_path):
    name = write(tmp_path / "m", model_type="llava", **{section: text_of("llama", 3)})
    with pytest.raises(RequestError, match=f"section {section} is nothing|no model of its"):
        resolve(name)


def test_sizes_that_disagree_are_named(tmp_path):
    text = text_of("llama", 1)
    name = write(tmp_path / "m", model_type="llava", hidden_size=640, text_config=text)
    with pytest.raises(RequestError, match=f"states hidden_size 640, .* {text['hidden_size']}"):
        resolve(name)


def test_a_default_outside_the_text_model_is_no_size_of_it(tmp_path):
    name = write(tmp_path / "m", model_type="ovis2", text_config=text_of("qwen2", 1))
    with pytest.raises(RequestError, match=r"text_config\.vocab_size .* builds 151643"):
        resolve(name)


def test_defaults_that_the_file_leaves_are_told(tmp_path):
    name = write(
        tmp_path / "m",
        model_type="llava",
        text_config={"model_type": "llama", "num_hidden_layers": 3},
    )
    (flag,) = resolve(name).flags
    assert "does not state vocab_size 32,000, hidden_size 4,096" in flag
    assert "num_hidden_layers" not in flag
    cell = make_cell(model=name, scope="decoder", num_visual=8)
    assert flag in predict(cell, "h100-80gb").flags


ONEVISION = {
    "model_type": "llava_onevision",
    "text_config": {
        "model_type": "qwen2",
        "vocab_size": 152000,
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
    },
}


@pytest.mark.parametrize(
    ("outer", "inner", "params", "flagged"),
    [
        (True, None, 494_090_112, False),
        (None, None, 630_282_112, False),
        (None, True, 494_090_112, False),
        (False, None, 630_282_112, False),
    ],
)
def test_embeddings_tied_at_the_outer_level(outer, inner, params, flagged, tmp_path):
    """LLaVA-OneVision 0.5B says so around its text model; transformers goes by that."""
    fields = json.loads(json.dumps(ONEVISION))
    if outer is not None:
        fields["tie_word_embeddings"] = outer
    if inner is not None:
        fields["text_config"]["tie_word_embeddings"] = inner
    name = write(tmp_path / "m", **fields)
    assert any("tie_word" in flag for flag in resolve(name).flags) == flagged
    assert decoder_params(name) == params == whole_params(resolve(name).whole)


@pytest.mark.parametrize("wrapper", ["internvl", "mistral3", "got_ocr2", "janus"])
def test_an_outer_default_ties_nothing(wrapper, tmp_path):
    """Their class ties unless told otherwise; Mistral Small's and InternVL's files say nothing."""
    text = {**text_of("qwen2", 4), "hidden_size": 32, "num_attention_heads": 4}
    del text["tie_word_embeddings"]
    name = write(tmp_path / "m", model_type=wrapper, text_config=text)
    assert resolve(name).config.tie_word_embeddings is False
    assert any(flag.startswith("tie_word_embeddings: False") for flag in resolve(name).flags)


class TestRope:
    EXTRA: ClassVar[dict] = {
        "dynamic": {"factor": 2.0},
        "linear": {"factor": 4.0},
        "llama3": {
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
        "longrope": {
            "factor": 4.0,
            "short_factor": [1.0] * 4,
            "long_factor": [2.0] * 4,
            "original_max_position_embeddings": 16,
        },
        "yarn": {"factor": 4.0, "original_max_position_embeddings": 16},
        "proportional": {"factor": 2.0},
    }

    def named(self, kind, folder, family="llama"):
        rope = {"rope_type": kind, "rope_theta": 10000.0, **self.EXTRA.get(kind, {})}
        fields = {**SHARED, "model_type": family, "max_position_embeddings": 16}
        if family == "gemma3_text":
            fields |= {**OWN["gemma3"], "head_dim": 8}
            rope = {
                "full_attention": rope,
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            }
        return write(folder / "m", **{**fields, "rope_parameters": rope})

    @pytest.mark.parametrize("family", ["llama", "gemma3_text"])
    @pytest.mark.parametrize("kind", rope_types())
    def test_every_type_is_predicted(self, kind, family, tmp_path):
        name = self.named(kind, tmp_path, family)
        cell = make_cell(
            model=name,
            scope="decoder",
            num_visual=40,
            num_text=7,
            kernel="eager",
            dtype="float32",
            attention="d_attn",
        )
        assert trace(cell).params == trace(cell.replace(kernel="sdpa")).params > 0
        assert torch.isfinite(build(cell).run_forward()[0]).all()

    @pytest.mark.parametrize("kind", ["dynamic", "longrope"])
    @pytest.mark.parametrize("text", [3, 30])
    def test_streams_go_by_the_whole_sequence(self, kind, text, tmp_path):
        """transformers' table of all positions at once, cut into streams."""
        name = self.named(kind, tmp_path)
        cell = make_cell(
            model=name,
            num_visual=10,
            num_text=text,
            kernel="eager",
            dtype="float32",
            attention="d_attn",
            layout="T,V,T",
        )
        context = build(cell).context
        model = resolve(name)
        places = torch.arange(10 + text)
        whole = model.family.rotary(model.config)(torch.empty(0), places[None])
        for stream, visual in (("visual", True), ("text", False)):
            where = context.layout.positions(visual)
            for ours, theirs in zip(context.rope(0, stream), whole, strict=True):
                assert torch.equal(ours, theirs[:, where])

    def test_an_unknown_type_is_refused(self, tmp_path):
        name = write(
            tmp_path / "m",
            **SHARED,
            model_type="llama",
            rope_scaling={"type": "spiral", "factor": 2.0},
        )
        with pytest.raises(RequestError, match=r"rope_type 'spiral' is unknown; known: default"):
            resolve(name)


BASES = {
    "mistral": {**SHARED, **OWN["mistral"], "model_type": "mistral"},
    "gemma3": {**TOWERS["gemma3"], "text_config": {**SHARED, **OWN["gemma3"]}},
    "qwen2_5_vl": {**TOWERS["qwen2_5_vl"], "text_config": {**SHARED, **OWN["qwen2_5_vl"]}},
}
FIELDS = sorted(
    {
        *SHARED,
        "head_dim",
        "sliding_window",
        "layer_types",
        "rope_parameters",
        "rope_scaling",
        "hidden_act",
        "tie_word_embeddings",
        "rms_norm_eps",
        "text_config",
        "vision_config",
        "model_type",
        "attention_bias",
        "mlp_bias",
        "torch_dtype",
        "quantization_config",
        "attn_logit_softcapping",
        "sliding_window_pattern",
        "pad_token_id",
        "attention_dropout",
    }
)
VALUES = [
    0,
    -1,
    3,
    10**9,
    10**14,
    1.5,
    -0.5,
    "4",
    "",
    True,
    None,
    [],
    {},
    [1, "a"],
    {"a": []},
    ["sliding_attention"],
    {"rope_type": []},
    {"full_attention": 3},
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("configs")


@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.sampled_from(sorted(BASES)),
    st.booleans(),
    st.lists(st.tuples(st.sampled_from(FIELDS), st.sampled_from(VALUES)), min_size=1, max_size=2),
)
def test_whatever_a_file_says_it_is_one_line_or_a_model(place, base, nested, changes):
    fields = json.loads(json.dumps(BASES[base]))
    inside = fields["text_config"] if nested and "text_config" in fields else fields
    inside.update(changes)
    name = write(place / "m", **fields)
    refusal = f"model {name!r}: "
    try:
        assert resolve(name).family in FAMILIES.values()
        cell = make_cell(model=name, scope="layer", num_visual=8, kernel="eager", dtype="float32")
        build(cell, "meta")
    except RequestError as error:
        refusal = str(error)
    assert "\n" not in refusal
    assert refusal.startswith(f"model {name!r}: ")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xff\xfe", "as UTF-8 text"),
        (b"[1]", "a JSON object is expected, not list"),
        (b'{"a": NaN}', "a: not a finite number"),
        (b'{"a": 1e400}', "a: not a finite number"),
        (b'{"hidden_size": ' + b"9" * 5000 + b"}", "not JSON"),
        (b'{"hidden_size": ' + b"9" * 50 + b"}", "is beyond 1,000,000,000,000,000"),
        (b'{"a":' * 3000 + b"1" + b"}" * 3000, "not JSON of at most"),
        (b" " * (MAX_BYTES + 1), "too large"),
        (b'{"a": 1', "not JSON"),
        (b"{}", "says no model_type"),
    ],
)
def test_a_file_that_is_no_config(data, message, tmp_path):
    (tmp_path / "config.json").write_bytes(data)
    with pytest.raises(RequestError, match=message):
        resolve(str(tmp_path))


def test_a_device_is_no_config(tmp_path):
    (tmp_path / "config.json").symlink_to("/dev/zero")
    with pytest.raises(RequestError, match=r"config\.json.*not a regular file"):
        resolve(str(tmp_path))


@pytest.mark.parametrize(("kind", "code"), [("never_heard_of", 2), ("llama", 0)])
def test_code_of_a_folder_is_never_run_and_nothing_is_asked(
    kind, code, tmp_path, capsys, monkeypatch
):
    """With and without a class of its own in transformers; standard input stays unread."""
    name = write(
        tmp_path / "m",
        **SHARED,
        model_type=kind,
        auto_map={"AutoConfig": "configuration_x.X", "AutoModel": "x.X"},
    )
    (tmp_path / "m" / "configuration_x.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 9))
    ended = 0
    try:
        cli.main(["predict", "--model", name, "--visual", "8", "--json"])
    except SystemExit as end:
        ended = int(end.code or 0)
    out, err = capsys.readouterr()
    assert (ended, sys.stdin.tell()) == (code, 0)
    assert "[y/N]" not in out + err
    assert err.count("\n") <= 1
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("names", "flagged"),
    [
        ({"AutoModelForCausalLM": "modeling_x.X"}, True),
        ({"AutoConfig": "c.X"}, False),
        ([], False),
    ],
)
def test_code_for_the_model_itself_is_told(names, flagged, tmp_path):
    """What such code computes may be another model of the same sizes."""
    name = write(tmp_path / "m", **SHARED, model_type="llama", auto_map=names)
    flags = [flag for flag in resolve(name).flags if flag.startswith("auto_map")]
    assert bool(flags) == flagged
    cell = make_cell(model=name, num_visual=8)
    assert set(flags) <= set(predict(cell, "h100-80gb").flags)


SOURCE = Path(__file__).parents[2] / "workbench"


def test_every_call_that_loads_from_a_name_trusts_no_code():
    """``from_pretrained`` and its kin, wherever the workbench calls one."""
    calls = [
        (path.name, node)
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("from_pretrained", "get_config_dict", "from_config")
    ]
    assert calls
    for name, call in calls:
        words = {word.arg: ast.unparse(word.value) for word in call.keywords}
        built_here = call.func.attr == "from_config"  # From an object, which holds no code.
        assert built_here or words.get("trust_remote_code") == "False", (name, call.lineno)
