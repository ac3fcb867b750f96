import subprocess
import sys

import pytest

from workbench.probe import doctor
from workbench.probe.doctor import examine
from workbench.probe.doctor_kernels import kernels
from workbench.probe.finding import Finding


@pytest.fixture(scope="module")
def findings() -> dict[str, Finding]:
    return {finding.name: finding for finding in examine()}


def test_everything_promised_is_looked_for(findings: dict[str, Finding]) -> None:
    kernels = {f"kernel {name}" for name in ("flash", "efficient", "cudnn", "math", "flex")}
    assert findings.keys() >= kernels | {
        *("machine", "python", "torch", "transformers", "gpu", "driver", "telemetry"),
        *("cpu bfloat16", "c++ compiler", "ninja", "chromium", "slurm", "deepspeed"),
        *("memory", "disk", "pandas", "kaleido", "streamlit", "pillow", "av"),
    }


def test_each_missing_thing_has_its_cost_and_its_fix(
    findings: dict[str, Finding],
) -> None:
    for finding in findings.values():
        assert finding.detail
        assert "\n" not in finding.detail
        if finding.name != "machine":
            assert finding.cost_if_missing
            assert finding.fix


def test_what_is_known_of_this_machine(findings: dict[str, Finding]) -> None:
    assert findings["python"].ok
    assert findings["torch"].ok
    assert findings["kernel math"].ok
    assert "float32" in findings["cpu bfloat16"].detail


def test_kernels_of_a_cpu() -> None:
    findings = {finding.name: finding for finding in kernels("cpu")}
    assert findings["kernel flash"].ok
    assert findings["kernel flex"].detail.endswith("no backward for it on a CPU")
    assert not findings["kernel cudnn"].ok
    assert not findings["kernel efficient"].ok


def test_a_program_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    assert doctor.compiler()[1:3] == (False, "not on PATH")


def test_the_doctor_works_without_torch() -> None:
    """None in sys.modules makes an import fail as it does where the package is missing."""
    script = (
        "import sys; sys.modules['torch'] = None;"
        "from workbench.probe import doctor; from workbench.probe.machine import environment;"
        "none = lambda: environment.TorchBuild(None, None);"
        "doctor.torch_build = environment.torch_build = none;"
        "found = {f.name: f for f in doctor.examine()};"
        "assert not found['torch'].ok and 'kernel flash' not in found, found"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
