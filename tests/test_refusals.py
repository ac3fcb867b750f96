"""What the command line refuses: one line that names what was given, and exit 2."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_cli import Answer


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("predict --model mistral-7b-v0.4 --visual 9", "did you mean mistral-7b-v0.3"),
        ("predict --attention dattn --visual 9", "did you mean d_attn"),
        ("predict --kernel sdpaa --visual 9", "did you mean sdpa"),
        ("predict --device h1000 --visual 9", "did you mean h100-80gb"),
        ("predict --memory-cap h1000 --visual 9", "did you mean h100-80gb"),
        ("predict --visual -1", "--visual -1: must be at least 0"),
        ("predict --visual 9 --scope world", "--scope 'world': use 'layer'"),
        ("predict --visual 9 --pass sideways", "--pass 'sideways': use 'forward'"),
        ("predict --visual 0 --text 0", "there is no token to compute"),
        ("predict --visual 9 --attention himix --logits all", "use 'text'"),
        ("predict --visual 9 --chunk 0", "--chunk 0: must be at least 1"),
        ("predict --visual many", "--visual 'many': write a whole number: digits, or 10k"),
        ("predict --visual=many", "--visual 'many': "),
        ("measure --visual 9 --device tpu", "a measurement runs on auto, cpu, cuda or cuda:N"),
        ("measure --visual 9 --max-seconds -1", "max_seconds -1.0"),
        ("list planets", "list 'planets' is unknown; known: attentions"),
        ("predict --visual 9 --memory-cap 1x", "memory_cap '1x' is unknown; known: "),
        ("list runs --store no.db", "no.db"),
        ("sweep missing.yaml", "missing.yaml"),
        ("sweep missing.py", "missing.py': no such file"),
        ("report no.db", "no.db"),
        ("dashboard no.db", "no.db"),
        ("export no.db -o out", "no.db"),
        ("merge no.db -o out.db", "no.db"),
        ("compare no.db no.db", "no.db"),
    ],
)
def test_a_wrong_request_is_one_line_and_exit_2(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: str,
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = Answer(capsys, *words.split())
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("workbench: ")
    assert answer.err.count("\n") == 1
    assert says in answer.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("predict --visual 9 --dtype2 x", "no such option: --dtype2; did you mean --dtype?"),
        ("predict --visual 9 --fps=x", "--fps 'x': write a number"),
        ("dashboard a.db --port x", "--port 'x': write a whole number"),
        ("limit --visual many", "--visual 'many': "),
        (
            "predict --visual",
            "option '--visual' requires an argument; see 'workbench predict --help'",
        ),
        ("dashboard a.db --port 99999999", "--port '99999999': must be at most 65535; see"),
        ("measure --visual 9 --memory-limit x", "--memory-limit 'x': write a whole number: digi"),
        ("merge a.db -o a\0b", "-o 'a\\x00b': a file's name has no NUL character; see"),
        ("fly", "no such command 'fly'"),
        ("list", "missing argument"),
        ("sweep", "missing argument 'PROBE.py"),
        ("export a b", "unexpected extra argument"),
    ],
)
def test_what_the_parser_refuses_is_one_line(
    capsys: pytest.CaptureFixture[str], words: str, says: str
) -> None:
    answer = Answer(capsys, *words.split())
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("workbench: ")
    assert answer.err.count("\n") == 1
    assert says in answer.err
    assert "--help'" in answer.err


def test_without_a_command_there_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    answer = Answer(capsys)
    assert answer.code == 2
    assert "Usage: workbench" in answer.err + answer.out


@pytest.mark.parametrize(
    "words",
    [
        ["export", "STORE", "-o"],
        ["report", "STORE", "--no-images", "-o"],
        ["calibrate", "STORE", "-o"],
        ["merge", "STORE", "-o"],
        ["list", "runs", "--store"],
        ["tokens", "--image"],
        ["predict", "--visual", "9", "--calibration"],
        ["predict", "--visual"],
        ["predict", "--visual", "9", "--memory-cap"],
        ["tokens", "--resolution", "9x9", "--model"],
        ["export", "--deepspeed-config"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize(
    "value",
    ["x" * 300, "9" * 5000, "/dev/full", "/dev/zero", "FOLDER/pipe", "a\0b"],
    ids=lambda value: f"{value[:12]!r}",
)
def test_a_value_of_no_use_is_one_line(
    capsys: pytest.CaptureFixture[str], stores: Path, tmp_path: Path, words: list[str], value: str
) -> None:
    os.mkfifo(tmp_path / "pipe")
    given = [str(stores / "one_cell.db") if word == "STORE" else word for word in words]
    answer = Answer(capsys, *given, value.replace("FOLDER", str(tmp_path)))
    assert answer.code in (1, 2)
    assert answer.err.startswith("workbench: ")
    assert answer.err.count("\n") == 1


def test_a_folder_that_is_no_utf_8_is_written_to_and_named(stores: Path, tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/\xff\xfe"
    command = [
        sys.executable,
        "-m",
        "workbench.cli",
        "export",
        stores / "one_cell.db",
        "-o",
        folder,
    ]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    (first, *_) = json.loads(done.stdout)["files"]
    assert Path(first).is_file()


def test_a_full_standard_output_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "workbench.cli", "list", "metrics"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 1
    assert done.stderr == "workbench: standard output: No space left on device\n"


@pytest.mark.parametrize(("closing", "code"), [(">&-", 0), ("<&- >&- 2>&-", 0), ("2>&-", 2)])
def test_standard_streams_that_are_closed(closing: str, code: int) -> None:
    """What is written goes nowhere, and into no file that is opened in their place."""
    words = "list metrics" if code == 0 else "list metrcs"
    shell = f'exec "$0" -m workbench {words} {closing}'
    done = subprocess.run(["sh", "-c", shell, sys.executable], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")


def test_a_current_folder_that_is_gone_is_one_line(tmp_path: Path) -> None:
    shell = 'rmdir "$PWD"; exec "$0" -m workbench list metrics'
    package = Path(__file__).parents[1]
    done = subprocess.run(
        ["sh", "-c", shell, sys.executable],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(package)},
    )
    assert done.returncode == 2
    assert done.stderr == (
        "workbench: the current folder: No such file or directory; change to one\n"
    )


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (
            "predict --visual 9 --model mistral-7b --attention dattn --kernel flsh --device h10",
            ("mean mistral-7b-v0.3", "mean d_attn", "mean flash", "mean h100-80gb"),
        ),
        (
            "predict --visual ten --pass trian --attention dattn --device h10",
            ("--visual 'ten': write", "mean train?", "mean d_attn", "mean h100-80gb"),
        ),
        (
            "predict --modle x --visual ten --fps=x --attention dattn --chekpoint",
            (
                "--model?",
                "--checkpoint?",
                "--fps 'x': write",
                "--visual 'ten': write",
                "mean d_attn",
            ),
        ),
        (
            "predict --visual 9 --cache --pass train --tower x --lora r=4",
            ("tower x: only", "cache: a forward pass", "lora: only a train pass"),
        ),
        ("predict --visual 9 --chunk 4 --skip-last", ("chunk, skip_last: s_attn has no such",)),
        (
            "measure --visual 9 --device h10 --kernel flsh",
            ("auto, cpu, cuda or cuda:N", "mean flash"),
        ),
        (
            "limit --solve imges --attention dattn",
            ("solve 'imges' is unknown; did you mean images", "mean d_attn"),
        ),
        ("sweep --dry-rnu --sotre x a.yaml", ("--dry-run?", "--store?")),
        (
            "predict --visual x --set foo=1 --set side --reduce pool --chunk 0 --kernel flsh",
            ("--visual 'x'", "'side': write name=value", "--chunk 0: must", "mean flash"),
        ),
        (
            "predict --visual 9 --set side=x,foo=1 --reduce pool --attention himix --logits all",
            ("logits 'all': himix", "side=x: a whole number", "foo: himix has no"),
        ),
        (
            "predict --visual 9 --preset nope --dtype fp8 --device h10",
            ("preset 'nope' is unknown", "--dtype 'fp8': use", "mean h100-80gb"),
        ),
        (
            "predict --visual 9 --chunk 4 --offload --reduce pool --kernel flsh",
            (
                "mean flash",
                "chunk: s_attn has no such",
                "offload: pass forward",
                "offload: moves what",
                "offload: a single layer",
                "reduce pool: a single layer",
            ),
        ),
        (
            "limit --solve batch --resolution 12 --vision siglp --emulate x --store no.db",
            (
                "store 'no.db': there is no",
                "solve batch: needs --visual",
                "--vision siglp: says nothing",
                "resolution '12': WIDTH",
                "mean siglip",
                "emulate x: is for",
                "emulate 'x': use 'all'",
            ),
        ),
        (
            "report no.db --question hmix --note no.md --case modle=x,images=y,gpus=0,device=h10",
            (
                "mean himix",
                "no.db",
                "note 'no.md'",
                "mean model",
                "images=y: a whole",
                "gpus=0: a whole",
                "mean h100-80gb",
            ),
        ),
        (
            "report no.db --case model=mistral-7b,images=3,price=2,device=h10 --question hmix",
            ("mean mistral-7b-v0.3", "price=2: a number", "mean h100-80gb", "mean himix"),
        ),
        (
            "tokens --model mistral-7b --vision siglp --resolution 3",
            ("mean mistr", "mean siglip", "resolution '3'"),
        ),
        ("merge no.db no2.db -o c.db", ("'no.db': there", "'no2.db': there")),
        ("compare no.db no.db --metric speed", ("metric 'speed' is unknown", "'no.db': there")),
        (
            "predict --visual 9 --zero 9 --tower x --layer 2 --scope decoder --chunk 4",
            ("--zero 9: must", "tower x: only", "layer 2: only", "chunk: s_attn has no such"),
        ),
        (
            "predict --visual 0 --text 0 --pass trian --cache --offload --kernel flsh",
            ("no token to compute", "mean train?", "offload: moves what", "mean flash"),
        ),
        (
            "predict --visual 9 --scope lvlm --tower siglp --memory-cap h1000 --offload",
            ("mean siglip", "mean h100-80gb", "offload: pass forward", "offload: moves what"),
        ),
        (
            "measure --visual 9 --tower x --emulate z --max-seconds -1 --snapshot a --device cpu",
            ("tower x: only", "emulate 'z'", "max_seconds -1"),
        ),
        (
            "predict --visual 9 --emulate all --scope decoder --pass train --lora r=4"
            " --accumulate 2 --zero 2",
            ("emulate all: emulates", "lora: an emul", "accumulate: an emul", "zero 2: with wor"),
        ),
        (
            "compare-systems --visual 9 --system himx --chart a.png",
            ("mean himix", "chart 'a.png'"),
        ),
        (
            "calibrate no.db no2.db -o c.json --device h10 --carry-to h20",
            ("'h10' is unknown", "'h20' is unknown", "'no.db': there", "'no2.db': there"),
        ),
        ("validate no.db --calibration no.json", ("'no.db': there", "'no.json': no such")),
        (
            "sweep no.yaml --engine slurm --sbatch foo --sbatch job-name=x --time x"
            " --source measured",
            (
                "'no.yaml'",
                "sbatch 'foo'",
                "sbatch 'job-name",
                "time 'x'",
                "source measured: is for",
            ),
        ),
        ("predict --visual 9 --preset nope --checkpoint-every 3 --pass trian", ("mean train?",)),
        (
            "compare no.db no2.db --metric time",
            ("mean time_s", "'no.db': there", "'no2.db': there"),
        ),
        (
            "sweep no.yaml --engine slrm --source measure --max-minutes -1 --calibration no.json",
            ("mean slurm", "mean measured", "max_minutes -1", "'no.yaml'", "'no.json'"),
        ),
        (
            "predict --chunk 0 --emulate x --calibration no.json --model mistral-7b",
            ("visual: give", "--chunk 0: must", "emulate 'x'", "'no.json'", "mean mistral-7b"),
        ),
        (
            "measure --visual 9 --chunk 0 --max-seconds -1 --device tpu",
            ("--chunk 0: must", "max_seconds -1.0", "auto, cpu, cuda or"),
        ),
        ("limit --chunk 0 --solve imges", ("--chunk 0: must", "mean images")),
        (
            "limit --fps=x --solve imges --emulate x",
            ("--fps 'x': w", "mean images", "emulate 'x'"),
        ),
        (
            "compare-systems --visual 9 --system dattn --system himx --device h10",
            ("mean d_attn", "mean himix", "mean h100-80gb"),
        ),
    ],
)
def test_every_fault_is_told_at_once(
    capsys: pytest.CaptureFixture[str], words: str, parts: tuple[str, ...]
) -> None:
    answer = Answer(capsys, *words.split())
    assert (answer.code, answer.out) == (2, "")
    lines = answer.err.splitlines()
    assert all(line.startswith("workbench: ") for line in lines)
    assert len(set(lines)) == len(lines)
    for part in parts:
        assert sum(part in line for line in lines) == 1, answer.err


def test_all_faults_are_told_at_once_with_near_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = Answer(
        capsys,
        *["predict", "--visual", "9", "--pass", "trian", "--scope", "lyer", "--dtype", "bf17"],
    )
    assert answer.code == 2
    for name in ("train", "layer", "bfloat16"):
        assert f"did you mean {name}?" in answer.err
    Path("a.yaml").write_text("modle: mistral-7b-v0.3\nvisual: [-5]\npasses: [trian]\n")
    answer = Answer(capsys, *["sweep", "a.yaml"])
    assert (answer.code, answer.err.count("\n")) == (2, 3)
    for part in (
        "visual.0 -5: must be at least 0",
        "did you mean train?",
        "there is no such field; did you mean model",
    ):
        assert part in answer.err


UNKNOWN = "visual: 1\nmodels: [mistrl, qwen]\nattention: dattn\nsource: predicted\ndevice: h10"


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        (
            "visual: [1, ten]\npass: trian\ncache: true\ntower: x\noffload: true\ndevice: tpu",
            (
                "visual.1 'ten': write a whole number: digits, or 10k, 1.5M, 1e6\n",
                "pass 'trian': use 'forward', 'train' or 'decode'; did you mean train?\n",
                "tower x: only scope 'lvlm' has a tower\n",
                "offload: moves what checkpoints keep",
                "offload: a single layer",
                "device 'tpu': ",
            ),
        ),
        (
            "visul: 1\nchunck: 2",
            (
                "visual: is missing\n",
                "visul 1: there is no such field; did you mean visual?\n",
                "chunck 2: there is no such field; did you mean chunk?\n",
            ),
        ),
        ("visual: yes", ("visual 'yes': write a whole number: digits, or 10k, 1.5M, 1e6\n",)),
        (
            "visual: 1\nzero: 9\noptions: [{chunk: 0}, {chunck: 2}]",
            ("zero 9: must be at most 3\n", "chunk 0: must be at least", "did you mean chunk?\n"),
        ),
        (
            "visual: 1\nset: [at=2]\nsettings: [at=3]",
            ("set: given beside settings; leave one",),
        ),
        (
            "visual: 1\nchunk: 4\noptions: {num_visual: 4}",
            ("num_visual: is no option of a cell here", "chunk: s_attn has no such option"),
        ),
        ("grids: [{visual: 1, model: 3}]", ("grids.0.model 3: write a word\n",)),
        (
            "kernel: eager\nchunk: 4\ngrids: [{visual: x}, {visual: 0, text: 0, layer: 1}]",
            (
                "chunk: belongs inside one of the grids\n",
                "kernel: belongs inside one of the grids\n",
                "grids.0.visual 'x': write a whole number",
                "grids.1: num_visual and num_text are both 0",
            ),
        ),
        (
            UNKNOWN,
            (
                "device 'h10' is unknown; did you mean h100-80gb",
                "model 'mistrl' is unknown; did you mean",
                "model 'qwen' is unknown; did you mean qwen",
                "attention system 'dattn' is unknown; did you mean d_attn",
            ),
        ),
        (
            f"{UNKNOWN}\nbatch: 0",
            (
                "batch 0: must be at least 1",
                "device 'h10' is unknown; did you mean h100-80gb",
                "model 'mistrl' is unknown; did you mean",
                "model 'qwen' is unknown; did you mean qwen",
                "attention system 'dattn' is unknown; did you mean d_attn",
            ),
        ),
        ('visual: 1\n"\\e[2J": 1', ("\\x1b[2J 1: there is no such field\n",)),
        ("a: &a [x, x]\nvisual: [*a, *a]", ("line 2: an alias (*a) is not read",)),
    ],
)
def test_a_wrong_sweep_says_all_that_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, messages: tuple[str, ...]
) -> None:
    (tmp_path / "a.yaml").write_text(text)
    answer = Answer(
        capsys, "sweep", tmp_path / "a.yaml", "--store", tmp_path / "s.db", "--dry-run"
    )
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.count("\n") == len(messages)
    for message in messages:
        assert answer.err.count(message) == 1, answer.err
    assert "Tuple" not in answer.err
