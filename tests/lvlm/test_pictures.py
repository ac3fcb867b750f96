"""Real files at scope lvlm: |V| and layout follow them, and their pixels go through the tower."""

import json
import re
import shlex
import sys
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from tests.small import small_lvlm
from workbench import cli
from workbench.lvlm.build import build
from workbench.lvlm.layout import Layout
from workbench.lvlm.models import MODELS, resolve
from workbench.lvlm.pictures import fields_of, look, pixels
from workbench.lvlm.towers import tower_of
from workbench.probe.counting.trace import trace
from workbench.probe.measuring.measure import measure
from workbench.report.command import command_of
from workbench.visual import VISIONS
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.pictures import Pictures
from workbench.vocabulary.protocol import Protocol

BY_TOWER = {model.tower: name for name, model in sorted(MODELS.items()) if model.tower}
"""A model of the catalogue for every tower that one names."""
SIZES = [(640, 480), (300, 1200), (1, 1), (1344, 896), (3000, 700)]
ONCE = Protocol(min_samples=1, precision=None)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two images and a video of 21 frames at 10 a second, each frame of one grey."""
    folder = tmp_path_factory.mktemp("files")
    noise = np.random.default_rng(0)
    for name, size in (("wide.png", (200, 420)), ("high.jpg", (300, 100))):
        Image.fromarray(noise.integers(0, 255, (*size, 3), dtype=np.uint8)).save(folder / name)
    with av.open(str(folder / "clip.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=Fraction(10))
        stream.width, stream.height, stream.pix_fmt = 84, 56, "bgr0"
        for shade in range(21):
            grey = np.full((56, 84, 3), 10 * shade, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        container.mux(stream.encode())
    whole = (folder / "wide.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "broken.mp4").write_bytes(b"no video at all")
    return folder


@pytest.mark.parametrize(
    "model", ["mistral-7b-v0.3", "gemma-3-4b", "qwen2.5-vl-7b", "qwen2-vl-7b", "qwen3-vl-8b"]
)
def test_towers_count_as_the_front_ends_do(model):
    tower = tower_of(resolve(model))
    front_end = tower.front
    assert front_end == VISIONS[tower.front_end]
    for size in SIZES:
        made = sum(map(tower.tokens, tower.of_image(*size)))
        assert made == front_end.tokens_of_image(*size)
        video = tower.of_video(*size, 7, 2.0)
        made = sum(tower.tokens(grid) for item in video for grid in item)
        assert made == front_end.tokens_of_video(*size, 7)


@pytest.mark.parametrize(
    "family", ["llama", "gemma3", "qwen2_5_vl", "qwen2_vl", "qwen3_vl", "qwen3_5"]
)
def test_the_pixels_are_what_the_tower_takes(family, files, tmp_path):
    model = small_lvlm(family, tmp_path)
    tower = tower_of(resolve(model))
    for shown in (
        Pictures(images=(str(files / "wide.png"), str(files / "high.jpg"))),
        Pictures(video=str(files / "clip.mkv"), fps=3.0),
    ):
        scene = look(tower, shown)
        read = pixels(tower, shown, scene)
        assert tuple(read.shape) == tower.pixels(1, scene.grids)
        assert read.dtype == torch.float32
        assert read.std() > 0
        assert torch.isfinite(read).all()


@pytest.mark.parametrize("name", BY_TOWER.values(), ids=BY_TOWER)
def test_files_of_every_tower_are_read_without_torchvision(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    tower, picture = tower_of(resolve(name)), Image.effect_noise((640, 480), 70).convert("RGB")
    assert tower.preprocess([picture], 0).shape == tower.pixels(1, tower.of_image(640, 480))
    frames = tuple(grid for item in tower.of_video(640, 480, 4, 1.0) for grid in item)
    assert tower.preprocess([picture] * 4, 4).shape == tower.pixels(1, frames)


def test_frames_of_a_video_are_sampled_evenly_and_paired(files, tmp_path):
    tower = tower_of(resolve(small_lvlm("qwen2_5_vl", tmp_path)))
    shown = Pictures(video=str(files / "clip.mkv"), fps=3.0)
    scene = look(tower, shown)
    count = scene.num_frames
    (grid,) = scene.grids
    assert grid == (3, 4, 6, pytest.approx(2 / (count / 2.1)), None)
    steps = pixels(tower, shown, scene).view(3, 24, 3, 2, -1)
    flat = steps.mean((1, 4))[:, 0]  # The red of every frame, in pairs.
    expected = torch.tensor([[10.0 * (i * 21 // count) for i in range(count)]]).view(3, 2)
    mean, std = 0.48145466, 0.26862954  # Of CLIP's red, which Qwen's processor takes.
    assert torch.allclose(flat, (expected / 255 - mean) / std, atol=1e-4)


@pytest.mark.parametrize(
    ("family", "mean", "std"),
    [("qwen2_vl", None, None), ("qwen3_vl", 0.5, 0.5), ("qwen3_5", 0.5, 0.5)],
)
def test_pixels_of_an_image_are_the_processor_s_own(family, mean, std, files, tmp_path):
    """Values and grid of transformers' processor under the published settings."""
    tower = tower_of(resolve(small_lvlm(family, tmp_path)))
    shown = Pictures(images=(str(files / "wide.png"),))
    eye, colours = tower.front, {}
    if mean is not None:
        colours = {"image_mean": [mean] * 3, "image_std": [std] * 3}
    processor = Qwen2VLImageProcessorPil(
        patch_size=eye.patch_size, min_pixels=eye.min_pixels, max_pixels=eye.max_pixels, **colours
    )
    wanted = processor(Image.open(files / "wide.png"), return_tensors="pt")
    scene = look(tower, shown)
    assert torch.equal(pixels(tower, shown, scene), wanted["pixel_values"])
    assert [[*grid[:3]] for grid in scene.grids] == wanted["image_grid_thw"].tolist()


def test_pairs_of_frames_of_qwen3_vl_stand_between_text(files, tmp_path):
    """Each is an image of its own: a layout may have text, such as time stamps, between them."""
    model = small_lvlm("qwen3_vl", tmp_path)
    shown = Pictures(video=str(files / "clip.mkv"), fps=3.0)
    scene = look(tower_of(resolve(model)), shown)
    each = scene.grids[0].patches // 4
    assert len(scene.items) == len(scene.grids) == -(-scene.num_frames // 2) > 1
    layout = ",".join(["T,V"] * len(scene.items)) + ",T"
    fields = fields_of(model, shown, layout)
    assert fields == {"num_visual": each * len(scene.items), "layout": layout}


@pytest.mark.parametrize("batch", [1, 2])
def test_real_pixels_are_the_inputs_of_every_sample(batch, files, tmp_path):
    model = small_lvlm("gemma3", tmp_path)
    shown = Pictures(images=(str(files / "high.jpg"),))
    fields = fields_of(model, shown, "T,V,T")
    assert fields == {"num_visual": 4, "layout": "T,V,T"}
    cell = make_cell(
        model=model, scope="lvlm", kernel="eager", dtype="float32", batch=batch, **fields
    )
    workload = build(cell, pictures=shown)
    tower = tower_of(resolve(model))
    wanted = pixels(tower, shown, look(tower, shown))
    assert torch.equal(workload.inputs[0], wanted.repeat(batch, 1, 1, 1))
    with pytest.raises(RequestError, match="num_visual 8: the files make 4 tokens"):
        build(cell.replace(num_visual=8), pictures=shown)


def test_a_record_says_what_it_showed(files, tmp_path):
    model = small_lvlm("qwen2_5_vl", tmp_path)
    asked = Pictures(images=(str(files / "wide.png"), str(files / "high.jpg")))
    fields = fields_of(model, asked, "V,T,V,T")
    assert fields == {"num_visual": 149, "layout": "V105,T,V44,T"}
    cell = make_cell(
        model=model,
        scope="lvlm",
        kernel="eager",
        dtype="float32",
        num_text=5,
        attention="d_attn",
        **fields,
    )
    record = measure(cell, "cpu", ONCE, pictures=asked)
    keys = ("file", "width", "height", "tokens")
    shown = record.details["pictures"]
    assert shown[0]["limits_from"]["min_pixels"] == "published"
    assert [{key: fact[key] for key in keys} for fact in shown] == [
        {"file": "wide.png", "width": 420, "height": 200, "tokens": 105},
        {"file": "high.jpg", "width": 100, "height": 300, "tokens": 44},
    ]
    assert record.metrics["flops"] == trace(cell, pictures=asked).flops


def test_a_layout_with_sizes():
    layout = Layout(33, 9, "V20,T,V13,T")
    assert [(s.visual, s.length) for s in layout.segments] == [
        (True, 20),
        (False, 5),
        (True, 13),
        (False, 4),
    ]
    for pattern in ("V20,T,V12,T", "V20,T,V,T"):
        with pytest.raises(ValueError, match="sizes of V must all be there and sum to 33"):
            _ = Layout(33, 9, pattern).segments
    with pytest.raises(RequestError, match="layout"):
        build(make_cell(num_visual=33, layout="V20,T,V12,T"))
    with pytest.raises(RequestError, match="alternates V and T"):
        make_cell(num_visual=33, layout="V0,T")


def run(capsys, *words):
    code = 0
    try:
        cli.main([str(word) for word in words])
    except SystemExit as end:
        code = int(end.code or 0)
    return code, *capsys.readouterr()


def test_predict_takes_a_video(capsys, files, tmp_path):
    model = small_lvlm("llama", tmp_path)
    code, out, _ = run(
        capsys,
        "predict",
        "--model",
        model,
        "--scope",
        "lvlm",
        "--video",
        files / "clip.mkv",
        "--fps",
        2,
        "--device",
        "cpu",
        "--json",
    )
    document = json.loads(out)
    assert code == 0
    assert document["cell"]["num_visual"] == 5 * 16
    assert document["details"]["pictures"][0]["frames"] == 5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--image", "cut.png"], "cut.png': not a whole image"),
        (["--video", "broken.mp4"], "broken.mp4': not a readable video"),
        (["--image", "nowhere.png"], "nowhere.png': no such file"),
        (
            ["--image", "wide.png", "--video", "clip.mkv"],
            "image files, a video or a resolution, one of",
        ),
        (["--image", "wide.png", "--visual", "4"], "visual 4: image says how many"),
        (["--image", "wide.png", "--fps", "2"], "fps 2: only a video is sampled"),
        (["--video", "clip.mkv", "--fps", "0"], "fps 0.0: must be more than 0"),
        (["--resolution", "64by64"], "resolution '64by64': WIDTHxHEIGHT in pixels"),
        (["--images", "2"], "images 2: of which size? give --resolution WIDTHxHEIGHT as well"),
        (["--resolution", "64x64", "--images", "2", "--frames", "3"], "leave one out"),
        (["--resolution", "64x64", "--image", "wide.png"], "a resolution, one of the three"),
        (["--resolution", "64x64", "--images", "0"], "images 0: must be at least 1"),
        (["--image", "wide.png", "--layout", "V,T,V,T"], "2 places for images, but there is onl"),
        (["--image", "wide.png", "--scope", "decoder"], "scope decoder has no vision tower"),
        ([], "give --visual N"),
    ],
)
@pytest.mark.parametrize("command", ["measure", "predict"])
def test_a_wrong_request_is_one_line_and_exit_2(
    capsys, command, words, message, files, monkeypatch, tmp_path
):
    model = small_lvlm("gemma3", tmp_path)
    monkeypatch.chdir(files)
    code, out, err = run(capsys, command, "--model", model, "--scope", "lvlm", *words)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("asked", "facts"),
    [
        ({"--images": 3}, {"count": 3, "tokens": 8}),
        ({"--frames": 6, "--fps": 2.0}, {"frames": 6, "fps": 2.0, "tokens": 3 * 8}),
    ],
    ids=["images", "video"],
)
def test_sizes_stand_for_files(capsys, asked, facts, tmp_path):
    """Predicted and measured alike, said with the limits, and repeated by the record's command."""
    model = small_lvlm("qwen2_5_vl", tmp_path)
    options = [word for pair in asked.items() for word in pair]
    words = ["--model", model, "--scope", "lvlm", "--resolution", "112x56", *options]
    documents = {}
    for command, short in (("predict", []), ("measure", ["--max-seconds", "0.1"])):
        code, out, err = run(capsys, command, *words, *short, "--device", "cpu", "--json")
        assert code == 0, err
        documents[command] = json.loads(out)
        (fact,) = documents[command]["details"]["pictures"]
        assert {"width": 112, "height": 56, **facts}.items() <= fact.items()
        assert fact["limits_from"]["max_pixels"] == "published"
        assert documents[command]["cell"]["num_visual"] == 24
    predicted, measured = (each["metrics"]["flops"] for each in documents.values())
    assert predicted == measured > 0
    record = documents["predict"]
    cell, details = make_cell(**record["cell"]), record["details"]
    again = command_of(cell, "predicted", "cpu", record["flags"], details)
    assert "--resolution 112x56" in again
    assert "--visual" not in again
    code, out, _ = run(capsys, *shlex.split(again)[1:], "--json")
    repeated = json.loads(out)
    assert code == 0
    assert all(repeated[name] == record[name] for name in ("cell", "metrics"))
    assert repeated["details"]["pictures"] == details["pictures"]
    code, out, _ = run(capsys, "predict", *words, "--device", "cpu")
    number = next(iter(asked.values()))
    assert re.search(rf"^{number} (images|frames) of 112x56, .*\nlimits: ", out, re.MULTILINE)


def test_limits_of_a_checkpoint_and_of_a_request(capsys, files, tmp_path):
    """The file beside the config is read at scope lvlm too, and an option goes before it."""
    model = small_lvlm("qwen2_5_vl", tmp_path)
    words = [
        "predict",
        "--model",
        model,
        "--scope",
        "lvlm",
        "--image",
        files / "wide.png",
        "--device",
        "cpu",
        "--json",
    ]
    (tmp_path / "qwen2_5_vl-lvlm" / "preprocessor_config.json").write_text(
        json.dumps({"min_pixels": 3136, "max_pixels": 40 * 28 * 28})
    )
    found = json.loads(run(capsys, *words)[1])
    fact = found["details"]["pictures"][0]
    assert found["cell"]["num_visual"] == fact["tokens"] <= 40
    assert fact["limits_from"]["max_pixels"] == "preprocessor_config.json"
    asked = json.loads(run(capsys, *words, "--max-pixels", 20 * 28 * 28)[1])
    assert asked["cell"]["num_visual"] <= 20
    assert asked["details"]["pictures"][0]["limits_from"]["max_pixels"] == "the request"
    shown = Pictures(video=str(files / "clip.mkv"), fps=10.0, max_video_tokens=12)
    tower = tower_of(resolve(model), None, shown.limits)
    scene = look(tower, shown)
    assert tuple(pixels(tower, shown, scene).shape) == tower.pixels(1, scene.grids)
    code, _, err = run(capsys, *words[:5], "--visual", 64, "--max-pixels", 99)
    assert (code, err) == (
        2,
        "workbench: max_pixels 99: only what is shown has limits; give --image, --video or "
        "--resolution\n",
    )
