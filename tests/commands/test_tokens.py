import json
from pathlib import Path

import pytest
from PIL import Image

from workbench import cli


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = 0
    try:
        cli.main(["tokens", *words])
    except SystemExit as end:
        code = int(end.code or 0)
    return code, *capsys.readouterr()


def test_the_contract_s_document(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    Image.new("RGB", (640, 480)).save(path)
    code, out, _ = run(capsys, "--model", "vicuna-7b", "--image", str(path), "--json")
    assert code == 0
    document = json.loads(out)
    assert document.pop("limits_from") == {"image_size": "published", "patch_size": "published"}
    assert document.pop("limits") == {"image_size": 384, "patch_size": 14}
    assert document == {
        "model": "vicuna-7b",
        "vision": "siglip",
        "images": 1,
        "frames": 0,
        "tokens_each": 729,
        "num_visual": 729,
    }


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--resolution", "9x9"], "729 visual tokens (siglip: 1 image, 729 each)"),
        (
            ["--vision", "pooled", "--resolution", "9x9", "--frames", "3"],
            "588 visual tokens (pooled: 3 frames, 196 each)",
        ),
        (
            ["--model", "qwen2.5-vl-7b", "--resolution", "1344x896", "--frames", "64"],
            "49,152 visual tokens (qwen2.5-vl: 64 frames, 1,536 each step of several frames)",
        ),
    ],
)
def test_a_sentence(capsys: pytest.CaptureFixture[str], words: list[str], sentence: str) -> None:
    code, out, err = run(capsys, *words)
    assert (code, out.splitlines()[0], err) == (0, sentence, "")
    assert out.splitlines()[1].startswith("limits: ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "mistral-7b", "--resolution", "9x9"], "did you mean mistral-7b-v0.3"),
        (["--model", "/nowhere/at/all", "--resolution", "9x9"], "no such folder"),
        (["--vision", "clip", "--resolution", "9x9"], "vision front end 'clip' is unknown"),
        (["--image", "/nowhere.png"], "image '/nowhere.png': no such file"),
        (["--resolution", "9x9", "--frames", "-1"], "frames -1: at least 1"),
        (
            ["--resolution", "9x9", "--frames", "1e18"],
            "frames 1000000000000000000: must be at most 1,000,000,000",
        ),
        ([], "give one of image, video and resolution"),
    ],
)
def test_a_wrong_request_is_one_line_and_exit_2(
    capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    code, out, err = run(capsys, *words, "--json")
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_limits_that_leave_no_size_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    words = "--model qwen2.5-vl-7b --resolution 9x9 --min-pixels 5000 --max-pixels 100"
    code, out, err = run(capsys, *words.split())
    assert (code, out) == (2, "")
    assert err == "workbench: min_pixels 5,000: more than max_pixels 100\n"
