"""The contract of the command line: documents, exit codes, one line for a mistake."""

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import typer

from tests import names
from tests.small import small_model
from tests.terminals import written
from workbench import __version__, cli
from workbench.commands.completion import NAMES
from workbench.commands.options import cell_options, give_all_options
from workbench.commands.show import fitted
from workbench.store import Store
from workbench.vocabulary.cell import FIELDS, make_cell
from workbench.vocabulary.metrics import METRICS
from workbench.vocabulary.record import Environment, Record, Status

APP = Path(cli.__file__).parents[1] / "app.py"
RECORDS = Path(cli.__file__).parents[1] / "reports/reference/h100-80gb/records.db"
HEAVY = ("torch", "transformers", "pandas", "plotly", "pydantic", "rich", "yaml", "sqlite3")


class Answer:
    """What one call of the program came to."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *words: object) -> None:
        self.code = 0
        try:
            cli.main([str(word) for word in words])
        except SystemExit as end:
            self.code = int(end.code or 0)
        self.out, self.err = capsys.readouterr()

    @property
    def document(self) -> Any:
        """The one JSON document on standard output."""
        assert self.out.count("\n") == 1
        return json.loads(self.out)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom workbench.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit as end: assert not end.code\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "Exit codes: 0 done; 1 the work failed; 2 the request was wrong." in done.stdout


INTERRUPTED = "workbench: interrupted; to go on, give the same command again\n"
INTERRUPTED_EARLY = """
import os, signal, sys

class Interrupts:
    def find_spec(self, name, *_):
        if name == {at!r}:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupts())
from workbench.start import main
sys.argv[1:] = ["predict", "--visual", "8"]
main()
"""


@pytest.mark.parametrize("at", ["workbench.cli", "typer", "workbench.vocabulary.cell", "pydantic"])
def test_an_interrupt_is_one_line_from_the_first_import_on(at: str) -> None:
    # As where a shell starts it: the tests themselves may run with interrupts ignored.
    asked = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code = asked + INTERRUPTED_EARLY.format(at=at)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", INTERRUPTED)


@pytest.mark.parametrize("line", ["dashboard: starting", "You can now view"])
def test_an_interrupted_dashboard_is_one_line(line: str, tmp_path: Path) -> None:
    with Store.open(tmp_path / "a.db", "w"):
        pass
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    asked = f"""
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv[1:] = ["run", {str(APP)!r}, "--server.address=127.0.0.1",
    "--server.port={port}", "--server.headless=true", "--", {str(tmp_path / "a.db")!r}]
print("dashboard: starting", flush=True)
from workbench.serve import main
main()
"""
    with subprocess.Popen(
        [sys.executable, "-u", "-c", asked],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        while line not in process.stdout.readline():
            assert process.poll() is None
        time.sleep(0.5)  # It imports, or it serves.
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, INTERRUPTED)


def test_interrupts_that_the_caller_ignores_stay_ignored() -> None:
    code = INTERRUPTED_EARLY.format(at="workbench.cli")
    ignoring = f"import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n{code}"
    done = subprocess.run(
        [sys.executable, "-c", ignoring.replace('"predict", "--visual", "8"', '"--version"')],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    give_all_options()
    commands = [c.name or c.callback.__name__ for c in cli.app.registered_commands]  # type: ignore[union-attr]
    assert len(commands) >= 9
    for command in commands:
        answer = Answer(capsys, command, "--help")
        assert answer.code == 0
        assert f" {command} [OPTIONS]" in answer.out


def test_the_version_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    answer = Answer(capsys, "--version")
    assert (answer.code, answer.out, answer.err) == (0, f"workbench {__version__}\n", "")


def test_short_numbers_and_dtypes_are_the_same_cell(capsys: pytest.CaptureFixture[str]) -> None:
    def key(*words: str) -> str:
        return str(Answer(capsys, "predict", *words, "--json").document["key"])

    long = key("--visual", "1500000", "--text", "2000", "--dtype", "float16")
    assert key("--visual", "1.5M", "--text", "2k", "--dtype", "fp16") == long
    assert key("--visual", "10k", "--dtype", "bf16") == key("--visual", "10000")


@pytest.mark.parametrize("number", ["1.5432k", "10ki", "k", "1e-3", "ten", "9" * 5000])
def test_another_text_is_no_number(capsys: pytest.CaptureFixture[str], number: str) -> None:
    answer = Answer(capsys, "predict", "--visual", number)
    assert (answer.code, answer.out) == (2, "")
    assert "write a whole number: digits, or 10k, 1.5M" in answer.err
    assert answer.err.count("\n") == 1
    assert len(answer.err) < 300


def test_the_options_of_a_cell_are_its_fields() -> None:
    options = cell_options()
    del options["preset"]  # A name for many fields at once.
    assert set(options) == set(FIELDS)
    for name, option in options.items():
        default = FIELDS[name].get_default()
        if option.kind is bool:
            assert default is False
        elif isinstance(option.default, str) and default is not None:
            plain = f"{default:_}" if type(default) is int else str(default)
            assert option.default == plain
        else:
            assert default is None or FIELDS[name].is_required()


def test_predict_prints_the_contract_s_document(capsys: pytest.CaptureFixture[str]) -> None:
    words = (
        "predict --model mistral-7b-v0.3 --attention d_attn --kernel efficient --scope layer"
        " --pass train --visual 0 --text 5 --batch 2 --dtype float32 --checkpoint --fold"
        " --device h200-141gb --json"
    )
    answer = Answer(capsys, *words.split())
    assert (answer.code, answer.err) == (0, "")
    found = answer.document
    cell = make_cell(
        attention="d_attn",
        kernel="efficient",
        num_visual=0,
        num_text=5,
        batch=2,
        dtype="float32",
        fold=True,
        checkpoint=True,
        **{"pass": "train"},
    )
    assert found["cell"] == cell.document()
    assert found["key"] == cell.key
    assert (found["source"], found["device"], found["status"]) == (
        "predicted",
        "h200-141gb",
        "ok",
    )
    metrics = found["metrics"]
    assert isinstance(metrics["flops"], int)
    assert isinstance(metrics["peak_bytes"], int)
    assert metrics["params"] == 218_112_000
    assert metrics["time_s"] > 0
    assert isinstance(found["flags"], list)
    assert found["environment"]["python"]


def test_flops_of_one_token_are_exact(capsys: pytest.CaptureFixture[str]) -> None:
    found = Answer(capsys, "predict", "--visual", 0, "--text", 1, "--json").document
    assert found["metrics"]["flops"] == 436_207_616 + 16_384


def test_a_limit_is_asked_without_a_size(capsys: pytest.CaptureFixture[str]) -> None:
    found = Answer(capsys, "limit", "--device", "a100-40gb", "--json").document
    assert found["max_visual"] < found["fails_at"] <= 1.01 * found["max_visual"] + 1
    assert Answer(capsys, "limit", "--visual", 9).code == 2


def test_a_limit_that_no_kernel_can_serve_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    answer = Answer(capsys, "limit", "--model", "gemma-2-9b", "--kernel", "sdpa")
    assert answer.code == 2
    assert "no soft-capping of scores, which gemma2 needs (50); use eager" in answer.err
    assert len(answer.err.strip().splitlines()) == 1


def test_a_predicted_oom_is_done_and_keeps_its_metrics(
    capsys: pytest.CaptureFixture[str],
) -> None:
    answer = Answer(capsys, "predict", "--visual", 10**6, "--memory-cap", 10**9, "--json")
    assert answer.code == 0
    assert answer.document["status"] == "oom"
    assert answer.document["metrics"]["flops"] > 1e16
    assert answer.document["cell"]["memory_cap"] == 10**9


def test_what_is_unsupported_is_done_and_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("predict", "--model", "gemma-2-9b", "--visual", 9)
    answer = Answer(capsys, *words, "--json")
    assert answer.code == 0
    assert answer.document["status"] == "unsupported"
    assert answer.document["metrics"]["time_s"] is None
    assert "soft-cap" in answer.document["error"]
    assert "unsupported" in Answer(capsys, *words).out


def test_people_get_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    answer = Answer(capsys, "predict", "--visual", 1024)
    assert answer.code == 0
    assert "predicted on h100-80gb: ok" in answer.out
    first = answer.out.splitlines()[0]
    assert first.startswith("fits: ")
    assert " of 78." in first
    assert "an iteration, measured error of " in first
    assert "FLOPs executed" in answer.out
    assert "494 GFLOP" in answer.out
    assert "MiB" in answer.out


def test_measure_runs_a_cell(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    model = small_model("mistral", tmp_path)
    words = ("measure", "--model", model, "--visual", 8, "--text", 2, "--dtype", "float32")
    limits = ("--device", "cpu", "--max-seconds", 1, "--memory-limit", 2**30)
    answer = Answer(capfd, *words, *limits, "--trace", tmp_path / "traces", "--json")
    assert (answer.code, answer.err) == (0, "")
    found = answer.document
    assert (found["source"], found["device"], found["status"]) == ("measured", "cpu", "ok")
    assert found["metrics"]["time_s"] > 0
    assert found["metrics"]["peak_bytes"] > 0
    assert found["metrics"]["num_samples"] == len(found["samples"]["time_s"])
    assert found["details"]["memory_limit_bytes"] == 2**30
    (trace,) = (tmp_path / "traces").iterdir()
    assert "traceEvents" in json.loads(trace.read_text())


def test_a_measurement_that_fails_is_exit_1(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    model = small_model("mistral", tmp_path)
    answer = Answer(
        capfd,
        "measure",
        "--model",
        model,
        "--visual",
        8,
        "--device",
        "cpu",
        "--timeout",
        0.001,
        "--json",
    )
    assert answer.code == 1
    assert answer.document["status"] == "timeout"
    assert answer.err == "workbench: timeout: no answer within 0.001 s\n"


def test_a_missing_package_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    monkeypatch.delitem(sys.modules, "workbench.analysis", raising=False)
    monkeypatch.delitem(sys.modules, "workbench.analysis.compare", raising=False)
    answer = Answer(capsys, "compare", "a.db", "b.db")
    assert answer.code == 1
    assert answer.err == (
        "workbench: pandas is not installed; 'workbench doctor' says what mends it\n"
    )


@pytest.mark.parametrize("kind", ["models", "attentions", "kernels", "devices", "metrics"])
def test_lists_name_what_the_registries_hold(
    capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    rows = Answer(capsys, "list", kind, "--json").document
    names = [row["name"] for row in rows]
    assert len(set(names)) == len(names)
    known = {
        "models": "mistral-7b-v0.3",
        "attentions": "d_attn",
        "kernels": "eager",
        "devices": "h100-80gb",
        "metrics": "flops",
    }
    assert known[kind] in names
    lines = Answer(capsys, "list", kind).out.splitlines()
    assert len(lines) == 1 + len(rows)
    assert {line.split()[0] for line in lines[1:]} == set(names)


def test_doctor_is_a_document(capsys: pytest.CaptureFixture[str]) -> None:
    answer = Answer(capsys, "doctor", "--json")
    assert answer.code == 0
    assert {"python", "torch", "gpu"} <= {finding["name"] for finding in answer.document}


def filled(path: Path, seconds: float, torch: str = "2.13.0") -> str:
    """A store with one measured cell of eight samples."""
    record = Record(
        cell=make_cell(num_visual=64),
        source="measured",
        device="cpu",
        status=Status.OK,
        metrics=dict.fromkeys(METRICS) | {"time_s": seconds, "flops": 2**70},
        samples={"time_s": [seconds * (1 + i / 1000) for i in range(8)]},
        started_at="2026-01-01T00:00:00+00:00",
    )
    with Store.open(path, "w") as store:
        run = store.begin_run("s", {"name": "s", "grids": []}, Environment(torch=torch))
        assert store.add(run, record)
    return run


def test_runs_are_listed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run = filled(tmp_path / "a.db", 1.0)
    (row,) = Answer(capsys, "list", "runs", "--store", tmp_path / "a.db", "--json").document
    assert (row["id"], row["sweep"], row["records"]) == (run, "s", 1)


def test_export_names_its_files(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    filled(tmp_path / "a.db", 1.0)
    answer = Answer(capsys, "export", tmp_path / "a.db", "-o", tmp_path / "out")
    assert answer.code == 0
    assert str(tmp_path / "out" / "records.csv") in answer.out.splitlines()
    assert str(2**70) in (tmp_path / "out" / "metrics.csv").read_text()


def test_merge_says_what_it_holds(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for name in "ab":
        filled(tmp_path / f"{name}.db", 1.0)
    words = ("merge", tmp_path / "a.db", tmp_path / "b.db", "-o", tmp_path / "c.db")
    found = Answer(capsys, *words, "--json").document
    assert (found["out"], found["num_runs"], found["num_records"]) == (
        str(tmp_path / "c.db"),
        2,
        2,
    )
    assert "2 runs, 2 records (0 added)" in Answer(capsys, *words).out


def test_compare_tells_slower_from_faster(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    old, new, odd = (tmp_path / f"{name}.db" for name in ("old", "new", "odd"))
    run = filled(old, 1.0)
    filled(new, 1.5)
    filled(odd, 1.5, torch="2.11.0")
    slower = Answer(capsys, "compare", old, new, "--json")
    assert slower.code == 1
    assert slower.document["regressions"] == 1
    assert [cell["verdict"] for cell in slower.document["cells"]] == ["slower"]
    assert Answer(capsys, "compare", old, new, "--threshold", 0.6).code == 0
    faster = Answer(capsys, "compare", new, old)
    assert faster.code == 0
    assert "faster" in faster.out
    refused = Answer(capsys, "compare", old, odd)
    assert refused.code == 2
    assert "torch: 2.13.0 -> 2.11.0" in refused.err
    assert Answer(capsys, "compare", odd, old, "--across").code == 0
    assert Answer(capsys, "compare", old, old).code == 2
    assert "is unknown" in Answer(capsys, "compare", old, new, "--old-run", "x" + run).err


def test_a_report_ends_by_naming_its_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    spec = tmp_path / "s.yaml"
    spec.write_text(
        "name: s\nvisual: [256, 512, 1024, 2048]\nattentions: [s_attn, d_attn]\n"
        "source: predicted\ndevice: h100-80gb\n"
    )
    store = tmp_path / "s.db"
    dry = Answer(capsys, "sweep", spec, "--store", store, "--dry-run", "--json")
    assert len(dry.document["cells"]) == 8
    assert not store.exists()
    swept = Answer(capsys, "sweep", spec, "--store", store, "--json")
    assert swept.code == 0
    assert swept.document["counts"] == {"ok": 8}
    assert f"workbench dashboard {store}" in swept.err
    told = Answer(capsys, "report", store, "-o", tmp_path / "out", "--no-images")
    assert told.code == 0
    assert told.out.splitlines()[-1].endswith(str(tmp_path / "out" / "report.html"))
    assert (tmp_path / "out" / "report.html").stat().st_size > 10_000


def test_an_empty_store_has_nothing_to_report(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with Store.open(tmp_path / "s.db", "w"):
        pass
    answer = Answer(capsys, "report", tmp_path / "s.db", "-o", tmp_path / "out")
    assert answer.code == 1
    assert answer.err.startswith("workbench: ")


def test_the_program_runs_as_a_module(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "workbench.cli", "sweep", "missing.yaml"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("workbench: sweep 'missing.yaml': ")


def test_a_measured_limit_needs_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    answer = Answer(capsys, "limit", "--store", "x.db")
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert "x.db" in answer.err
    assert "no such file" in answer.err
    answer = Answer(capsys, "limit", "--measure", "--device", "cpu")
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert "--memory-cap BYTES" in answer.err


@pytest.mark.parametrize("command", ["measure", "sweep"])
def test_a_folder_for_traces_that_cannot_be_written(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: str
) -> None:
    """Said before anything is measured: no worker is started, no store is made."""
    (tmp_path / "file").touch()
    probe = tmp_path / "s.yaml"
    probe.write_text("visual: 8\n")
    what = [probe, "--store", tmp_path / "s.db"] if command == "sweep" else ["--visual", 8]
    for folder in (tmp_path / "file" / "traces", Path("/proc/traces")):
        answer = Answer(capsys, command, *what, "--trace", folder)
        assert answer.code == 2
        assert answer.err.startswith(f"workbench: trace '{folder}': cannot be written: ")
        assert answer.err.count("\n") == 1
    assert not (tmp_path / "s.db").exists()


def test_a_snapshot_needs_a_card(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = tmp_path / "viz"
    words = ("measure", "--visual", 8, "--device", "cpu", "--snapshot", folder)
    answer = Answer(capsys, *words)
    assert answer.code == 2
    assert answer.err == (
        f"workbench: snapshot '{folder}': memory_viz shows CUDA's allocator; --device cuda\n"
    )
    assert not folder.exists()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--model", "qwen2-7b"), "model 'qwen2-7b' was not measured"),
        (("--scope", "decoder", "--pass", "train", "--lora", "r=4"), "lora was not measured"),
    ],
)
def test_an_error_that_was_measured_elsewhere_is_not_claimed(
    words: tuple[str, ...], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    first = Answer(capsys, "predict", "--visual", 1024, *words).out.splitlines()[0]
    assert f"an iteration, extrapolated: {reason}" in first
    assert "measured error" not in first


@pytest.mark.parametrize(
    ("widths", "whole", "most", "found"),
    [
        ([3, 4], [3, 4], 9, [3, 4]),
        ([30, 4], [5, 4], 20, [14, 4]),
        ([20, 20], [20, 7], 30, [20, 8]),
        ([20, 20], [20, 20], 30, [14, 14]),
        ([40, 40], [9, 9], 5, [6, 6]),
    ],
)
def test_the_widest_columns_give_way_to_the_terminal(
    widths: list[int], whole: list[int], most: int, found: list[int]
) -> None:
    assert fitted(widths, whole, most) == found


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("kind", ["models", "devices", "metrics", "runs"])
def test_tables_fit_the_terminal_and_lose_no_word(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, kind: str, width: int
) -> None:
    words = ["list", kind, "--store", RECORDS] if kind == "runs" else ["list", kind]
    monkeypatch.setenv("COLUMNS", str(width))
    whole = Answer(capsys, *words).out
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    fitting = Answer(capsys, *words).out
    assert max(map(len, fitting.splitlines())) <= width
    assert sorted("".join(fitting.split())) == sorted("".join(whole.split()))


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("kind", ["attentions", "kernels"])
def test_a_terminal_says_what_each_name_means(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, kind: str, width: int
) -> None:
    rows = Answer(capsys, "list", kind, "--json").document
    assert all(row["meaning"].endswith((".", "?")) and "`" not in row["meaning"] for row in rows)
    assert "meaning" not in Answer(capsys, "list", kind).out
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    lines = Answer(capsys, "list", kind).out.splitlines()
    assert lines[0].split()[-1] == "meaning"
    assert max(map(len, lines)) <= width
    assert len(lines) < 3.5 * len(rows)


def test_sentences_fit_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    answer = Answer(capsys, "predict", "--visual", "1k")
    assert max(map(len, answer.out.splitlines())) <= 80
    assert "78.5 GiB" in answer.out


SPEAKS = {
    "sweep a.yaml": "reading a.yaml",
    "predict --visual 9 --model nope": "predicting",
    "limit --model nope": "predicting",
    "calibrate no.db -o c.json": "fitting",
    "report no.db": "reading the store",
    "tokens --model nope --resolution 9x9": "counting",
    "compare no.db no.db": "reading both runs",
}
"""A command that is refused once its imports are done, and what a terminal shows before that."""


@pytest.mark.parametrize("words", SPEAKS)
def test_a_long_command_says_first_what_it_does(words: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("visual: x\n")
    ours, theirs = pty.openpty()
    program = Path(sys.executable).with_name("workbench")
    done = subprocess.run(
        [program, *words.split()],
        cwd=tmp_path,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    text = written(ours)
    assert done.returncode == 2
    assert SPEAKS[words] in text.partition("workbench: ")[0]


def test_devices_are_listed_in_human_units(capsys: pytest.CaptureFixture[str]) -> None:
    answer = Answer(capsys, "list", "devices")
    assert "989.4 TFLOP/s" in answer.out
    assert "78.45 GiB" in answer.out
    whole = Answer(capsys, "list", "devices", "--json")
    assert json.loads(whole.out)[0]["capacity_bytes"] == 84_235_046_093


COMPLETED = [
    ("predict --model mistral-7", {"mistral-7b-v0.3"}),
    ("measure --attention d_attn_s", {"d_attn_sigmoid", "d_attn_sum"}),
    ("limit --kernel flash_", {"flash_attention_2", "flash_attention_3"}),
    ("predict --scope l", {"layer", "lvlm"}),
    ("limit --dtype float", {"float64", "float32", "float16"}),
    ("predict --weights-dtype int", {"int4", "int8"}),
    ("predict --reduce p", {"pool", "pixel_shuffle"}),
    ("predict --memory-cap a100", {"a100-80gb", "a100-40gb"}),
    ("compare-systems --device h", {"h100-80gb", "h200-141gb"}),
    ("measure --device c", {"cpu", "cuda"}),
    ("limit --solve m", {"minutes"}),
    ("tokens --vision qwen3", {"qwen3-omni", "qwen3-vl", "qwen3.5"}),
    ("report --question h", {"himix"}),
    ("list kind k", {"kernels"}),
    ("sweep --engine s", {"slurm"}),
    ("compare --metric time_", {"time_s", "time_q1_s", "time_q3_s"}),
]


def completion(shell: str, line: str) -> str:
    """What the program answers a shell that asks what the line's last word may become."""
    words = f"workbench {line}"
    asked = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    if shell != "bash":
        asked = {"_TYPER_COMPLETE_ARGS": words, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    done = subprocess.run(
        [Path(sys.executable).with_name("workbench")],
        env={**os.environ, **asked, "_WORKBENCH_COMPLETE": f"complete_{shell}"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@pytest.mark.parametrize(("line", "words"), COMPLETED)
def test_values_are_completed(line: str, words: set[str]) -> None:
    name, option, beginning = line.split()
    give_all_options()
    command: Any = typer.main.get_command(cli.app)
    command = command.commands[name]
    (param,) = (p for p in command.params if option in (*p.opts, p.name))
    context = command.context_class(command, info_name=name)
    assert {item.value for item in param.shell_complete(context, beginning)} == words


def test_the_shell_completes_options() -> None:
    assert completion("bash", "predict --vis").split() == ["--visual", "--visual-positions"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_completes_values(shell: str) -> None:
    assert "mistral-7b-v0.3" in completion(shell, "predict --model mistral-7")


def test_the_names_that_a_shell_completes_are_those_there_are() -> None:
    assert NAMES.read_text(encoding="utf-8") == names.text()


def test_a_completion_is_quick_and_loads_no_torch() -> None:
    script = (
        "import sys, time\n"
        "from workbench.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "assert 'torch' not in sys.modules\n"
        "assert time.process_time() < 0.6, time.process_time()\n"
    )
    asked = {"COMP_WORDS": "workbench predict --model q", "COMP_CWORD": "3"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **asked, "_WORKBENCH_COMPLETE": "complete_bash"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "qwen2-7b" in done.stdout


def test_no_line_of_the_help_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    answer = Answer(capsys, "--help")
    commands = answer.out.partition("Commands:")[2]
    assert "doctor" in commands
    assert "..." not in commands
    assert max(map(len, answer.out.splitlines())) <= 80
