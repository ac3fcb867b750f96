"""The threshold solved for the batch, frames and minutes: brackets hold, contradictions end."""

import json

import pytest

from tests.small import small_model
from workbench.cli import app
from workbench.commands.options import give_all_options
from workbench.lvlm.pictures import fields_of
from workbench.probe.predicting.limit import predicted_limit
from workbench.probe.predicting.predict import predict
from workbench.probe.predicting.solve import Question, solved
from workbench.visual import Limits
from workbench.visual.tokens import front_end_of, tokens
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.pictures import make_pictures
from workbench.vocabulary.record import Status

give_all_options()

DEVICE = "a100-40gb"


def small_cell(tmp_path, family="mistral", cap=200_000_000, **fields):
    return make_cell(
        model=small_model(family, tmp_path),
        num_visual=1,
        memory_cap=cap,
        **{"scope": "decoder", "pass": "train", "attention": "d_attn", **fields},
    )


def ends(cell, largest, fails):
    assert predict(cell.replace(**largest), DEVICE).status == Status.OK
    assert predict(cell.replace(**fails), DEVICE).status == Status.OOM


def test_the_largest_batch(tmp_path):
    cell = small_cell(tmp_path)
    found = solved(cell, DEVICE, Question("batch", num_visual=500))
    assert found["cell"]["num_visual"] == 500
    assert found["fails_at"] - found["max_batch"] <= max(1, 0.01 * found["max_batch"])
    here = cell.replace(num_visual=500)
    ends(here, {"batch": found["max_batch"]}, {"batch": found["fails_at"]})


@pytest.mark.parametrize(
    ("vision", "resolution"), [("qwen2.5-vl", "448x336"), (None, "640x480"), ("pooled", "640x480")]
)
def test_the_most_frames_of_a_resolution(vision, resolution, tmp_path):
    cell = small_cell(tmp_path)
    found = solved(cell, DEVICE, Question("frames", vision=vision, resolution=resolution))
    most, fails = (
        tokens(cell.model, found["vision"], resolution=resolution, frames=n)["num_visual"]
        for n in (found["max_frames"], found["fails_at"])
    )
    assert found["max_visual"] == most
    ends(cell, {"num_visual": most}, {"num_visual": fails})


@pytest.mark.parametrize("solve", ["images", "pixels"])
def test_a_tower_of_any_size_sees_the_size_that_is_asked_for(solve):
    """At scope lvlm: the ends of the bracket, predicted as such images."""
    cell = make_cell(model="qwen3-vl-2b", num_visual=1, scope="lvlm", memory_cap=8 * 10**9)
    found = solved(cell, DEVICE, Question(solve, resolution="640x480"))
    largest, fails = found[f"max_{solve}"], found["fails_at"]
    assert 0 < largest < fails <= 1.01 * largest + 1 + (4096 if solve == "pixels" else 0)
    for number, status in ((largest, Status.OK), (fails, Status.OOM)):
        asked = {
            "images": {"resolution": "640x480", "count": number},
            "pixels": {"resolution": "40960x30720", "max_pixels": number},
        }[solve]
        shown = make_pictures(**asked)
        own = cell.replace(**fields_of(cell.model, shown, cell.layout))
        assert predict(own, DEVICE, pictures=shown).status == status
        if status == Status.OK:
            assert own.num_visual == found["max_visual"]


def test_at_scope_lvlm_the_tower_s_own_front_end_sees():
    cell = make_cell(model="qwen3-vl-2b", num_visual=1, scope="lvlm")
    with pytest.raises(RequestError, match="vision siglip: at scope lvlm the cell's tower sees"):
        solved(cell, DEVICE, Question("images", vision="siglip", resolution="640x480"))


def test_minutes_are_frames_at_a_rate(tmp_path):
    cell = small_cell(tmp_path)
    frames = solved(cell, DEVICE, Question("frames", resolution="640x480"))
    found = solved(cell, DEVICE, Question("minutes", resolution="640x480", fps=2.0))
    assert found["max_minutes"] == found["max_frames"] / 120 == frames["max_frames"] / 120
    assert found["max_visual"] == frames["max_visual"]
    assert found["stopped_by"] == frames["stopped_by"]


def test_a_front_end_that_takes_no_more_frames_stops_the_video(tmp_path):
    cell = small_cell(tmp_path, cap=10**12)
    question = Question("minutes", vision="qwen2.5-vl", resolution="56x56", fps=1.0)
    found = solved(cell, "h200-141gb", question)
    assert (found["max_frames"], found["fails_at"]) == (768, None)
    assert found["max_minutes"] == 768 / 60
    assert "768 frames" in found["stopped_by"]


def test_nothing_fits_a_tiny_cap(tmp_path):
    found = solved(small_cell(tmp_path, cap=1000), DEVICE, Question("batch", num_visual=10))
    assert (found["max_batch"], found["fails_at"]) == (None, 1)


@pytest.mark.parametrize(
    ("question", "words"),
    [
        (Question("seconds"), "known: batch, frames, images, minutes, pixels, visual"),
        (Question("visual", num_visual=5), "--visual 5: says nothing"),
        (Question("batch"), "needs --visual"),
        (Question("batch", num_visual=-5), "num_visual -5"),
        (Question("batch", num_visual=5, resolution="10x10"), "--resolution 10x10: says nothing"),
        (Question("frames"), "needs --resolution"),
        (Question("frames", resolution="640x480", fps=1.0), "--fps 1.0: says nothing"),
        (Question("frames", resolution="640"), "WIDTHxHEIGHT"),
        (Question("frames", resolution="640x480", vision="eye"), "vision front end 'eye'"),
        (Question("minutes", resolution="640x480", fps=0.0), "fps 0: more than 0"),
        (Question("minutes", resolution="640x480", num_visual=5), "--visual 5: says nothing"),
    ],
)
def test_contradictions_are_one_line(question, words, tmp_path):
    with pytest.raises(RequestError, match=words):
        solved(small_cell(tmp_path), DEVICE, question)


def test_a_batch_that_is_given_cannot_be_solved_for(tmp_path):
    with pytest.raises(RequestError, match="what is solved for"):
        solved(small_cell(tmp_path, batch=2), DEVICE, Question("batch", num_visual=5))


def test_the_command(tmp_path, capsys):
    words = [
        "limit",
        "--model",
        small_model("mistral", tmp_path),
        "--memory-cap",
        "100000000",
        "--solve",
        "minutes",
        "--resolution",
        "640x480",
        "--fps",
        "2",
    ]
    app(words, standalone_mode=False)
    said = capsys.readouterr().out
    assert "minutes fit" in said
    assert "frames of 640x480, 729 each step (siglip)" in said
    app([*words, "--json"], standalone_mode=False)
    document = json.loads(capsys.readouterr().out)
    assert document["solve"] == "minutes"
    assert document["max_minutes"] * 120 == document["max_frames"]


def test_limits_of_the_front_end():
    """A budget for the whole video lets more frames fit; a limit of frames ends the search."""
    cell = make_cell(model="qwen2.5-vl-7b", scope="decoder", num_visual=1)
    size = "1920x1080"
    plain = solved(cell, "rtx-4090-24gb", Question("frames", resolution=size))
    few = Limits(max_video_tokens=2_000)
    capped = solved(cell, "rtx-4090-24gb", Question("frames", resolution=size, limits=few))
    assert capped["max_frames"] > plain["max_frames"]
    assert capped["limits_from"]["max_video_pixels"] == "the request"
    most = Question("minutes", resolution=size, limits=Limits(max_frames=8))
    assert solved(cell, "h200-141gb", most)["max_frames"] == 8
    with pytest.raises(RequestError, match="max_frames 3: says nothing where limit solves"):
        solved(cell, "cpu", Question(limits=Limits(max_frames=3)))


def test_a_model_whose_front_end_is_not_known(tmp_path):
    fields = {"model_type": "chameleon", "vision_config": {"model_type": "chameleon_vq"}}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    cell = make_cell(model=str(tmp_path), scope="decoder", num_visual=1)
    with pytest.raises(RequestError, match="the front ends are "):
        solved(cell, "h100-80gb", Question("frames", resolution="9x9"))


SEES = {"model": "qwen2.5-vl-7b", "scope": "decoder", "logits": "text", "num_visual": 1}


def test_images_are_as_many_as_their_tokens_fit():
    found = solved(make_cell(**SEES), "h100-80gb", Question("images", resolution="640x480"))
    each = front_end_of("qwen2.5-vl-7b").tokens_of_image(640, 480)
    assert found["tokens_each"] == each
    assert found["max_visual"] == each * found["max_images"]
    assert found["max_images"] < found["fails_at"] <= found["max_images"] * 1.01 + 1
    cells = [
        make_cell(**{**SEES, "num_visual": each * found[end]})
        for end in ("max_images", "fails_at")
    ]
    assert [predict(cell, "h100-80gb").status for cell in cells] == ["ok", "oom"]


def test_pixels_are_as_many_as_one_image_may_have():
    found = solved(make_cell(**SEES), "rtx-4090-24gb", Question("pixels", resolution="1280x720"))
    room = predicted_limit(make_cell(**SEES), "rtx-4090-24gb").max_visual
    ends = [
        front_end_of("qwen2.5-vl-7b", limits=Limits(max_pixels=found[end])).tokens_of_image(
            128_000, 72_000
        )
        for end in ("max_pixels", "fails_at")
    ]
    assert ends[0] == found["max_visual"] <= room < ends[1]
    assert found["fails_at"] <= 1.011 * found["max_pixels"]


@pytest.mark.parametrize(
    ("model", "question", "message"),
    [
        ("llava-1.5-7b", Question("pixels", resolution="9x9"), "llava has no max_pixels"),
        ("qwen2.5-vl-7b", Question("images"), "solve images: needs --resolution"),
        (
            "qwen2.5-vl-7b",
            Question("pixels", resolution="9x9", limits=Limits(max_pixels=9999)),
            "max_pixels 9999: says nothing",
        ),
    ],
)
def test_images_and_pixels_that_cannot_be(model, question, message):
    cell = make_cell(**{**SEES, "model": model})
    with pytest.raises(RequestError, match=message):
        solved(cell, "h100-80gb", question)
