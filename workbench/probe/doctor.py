"""What this machine has, what each missing thing costs, and the line that mends it."""

import os
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from workbench.probe.finding import Finding
from workbench.probe.machine.environment import (
    environment,
    free_memory_bytes,
    num_gpus,
    resolve_device,
    torch_build,
    total_memory_bytes,
)
from workbench.probe.machine.nvml import Nvml
from workbench.probe.measuring.telemetry import Telemetry

EXTRA = "pip install 'visual-token-workbench[{}]'"
MIN_FREE_MEMORY = 4 * 2**30
MIN_FREE_DISK = 2 * 2**30
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"


def _package(name: str, distribution: str, cost: str, fix: str) -> Finding:
    """Whether a package can be imported, without importing it."""
    installed = find_spec(name) is not None
    try:
        detail = version(distribution) if installed else "not installed"
    except PackageNotFoundError:
        detail = "installed, version unknown"
    return Finding(distribution, installed, detail, cost, fix)


def _program(name: str, choices: tuple[str, ...], cost: str, fix: str) -> Finding:
    paths = [path for choice in choices if (path := shutil.which(choice))]
    return Finding(name, bool(paths), paths[0] if paths else "not on PATH", cost, fix)


def python() -> Finding:
    """The interpreter, and whether it is new enough."""
    detail = ".".join(str(part) for part in sys.version_info[:3])
    cost = "nothing runs"
    return Finding("python", sys.version_info >= (3, 11), detail, cost, "make PYTHON=python3.12")


def torch() -> Finding:
    """The torch build, read from its files."""
    build = torch_build()
    kind = f"built for CUDA {build.cuda}" if build.cuda else "CPU build"
    detail = f"{build.version}, {kind}" if build.version else "not installed"
    cost = "no measuring and no predicting; stored results can still be seen and reported"
    return Finding("torch", build.version is not None, detail, cost, EXTRA.format("probe"))


def gpu(nvml: Nvml) -> Finding:
    """The cards that this process sees, and whether the installed torch can use them."""
    count = num_gpus(nvml)
    names = [str(nvml.ask("nvmlDeviceGetName", card).value) for card in nvml.visible()]
    usable = bool(count) and torch_build().cuda is not None
    detail = ", ".join(names) or (f"{count} without NVML" if count else nvml.reason or "none seen")
    if count and not usable:
        detail += "; torch is a CPU build"
    cost = "measured on the CPU; a card's figures are predictions"
    return Finding("gpu", usable, detail, cost, "run on a GPU node: docs/gpu-node.md")


def driver(nvml: Nvml) -> Finding:
    """The NVIDIA driver as NVML gives it."""
    answer = nvml.ask("nvmlSystemGetDriverVersion")
    detail = str(answer.value or answer.reason)
    cost = "no energy, clocks or throttling in the records"
    return Finding("driver", answer.value is not None, detail, cost, "install NVIDIA's driver")


def telemetry(device: str, nvml: Nvml) -> Finding:
    """Which of the card's facts the driver refuses."""
    reasons = Telemetry(device, nvml, uses_card=False).snapshot().reasons
    detail = "; ".join(f"{name}: {why}" for name, why in reasons.items()) or "all there"
    if device == "cpu":
        detail = "a CPU has no NVML"
    cost = "the facts named are null in the records, with the reason"
    return Finding("telemetry", not reasons, detail, cost, "a newer driver, or a card of its own")


def compiler() -> Finding:
    """A C++ compiler, for torch.compile on the CPU and for deepspeed's helper."""
    names = tuple(filter(None, (os.environ.get("CXX"), "g++", "c++", "clang++")))
    cost = "no --compile on the CPU and no deepspeed"
    return _program("c++ compiler", names, cost, "apt-get install g++")


def chromium() -> Finding:
    """A browser that kaleido can draw with."""
    names = tuple(filter(None, (os.environ.get("BROWSER_PATH"), *CHROMIUMS)))
    cost = "reports without PNG and SVG; browser tests are skipped"
    return _program("chromium", names, cost, "apt-get install chromium")


def memory() -> Finding:
    """Host memory that this process could take."""
    free = free_memory_bytes()
    detail = f"{_gib(free)} free of {_gib(total_memory_bytes())}"
    cost = "CPU measurements end in an OOM early: they are limited to 60 % of what is free"
    return Finding("memory", free >= MIN_FREE_MEMORY, detail, cost, "stop other programs")


def disk() -> Finding:
    """Room for the store and the reports in the current folder."""
    free = shutil.disk_usage(Path.cwd()).free
    cost = "a store that cannot grow ends the sweep; what it holds is safe"
    detail = f"{_gib(free)} free here"
    return Finding("disk", free >= MIN_FREE_DISK, detail, cost, "use another folder: --store FILE")


def examine() -> list[Finding]:
    """Look for everything; takes some seconds where torch is installed, since kernels are run."""
    nvml = Nvml()
    device = resolve_device("auto", nvml)
    facts = environment("cpu", nvml)
    host = f"{facts.os}; {facts.cpu}, {facts.num_threads} threads"
    findings = [
        Finding("machine", True, host, "", ""),
        python(),
        torch(),
        _package("transformers", "transformers", "no models", EXTRA.format("probe")),
        gpu(nvml),
        driver(nvml),
        telemetry(device, nvml),
    ]
    if torch_build().version is not None:
        from workbench.probe.doctor_kernels import cpu_arithmetic, kernels

        findings += [*kernels(device), *cpu_arithmetic()]
    findings += [
        _package("flash_attn", "flash-attn", "no flash_attention_2", "pip install flash-attn"),
        _package(
            "fla",
            "flash-linear-attention",
            "lightning runs as plain matmuls",
            "pip install flash-linear-attention",
        ),
        _package("deepspeed", "deepspeed", "no training at scale", "pip install deepspeed"),
        compiler(),
        _program("ninja", ("ninja",), "deepspeed cannot build its helper", "pip install ninja"),
        _package("pandas", "pandas", "no analysis and no reports", EXTRA.format("report")),
        _package("kaleido", "kaleido", "reports without PNG and SVG", EXTRA.format("report")),
        chromium(),
        _package("streamlit", "streamlit", "no dashboard", EXTRA.format("dashboard")),
        _package("PIL", "pillow", "no --image for tokens", EXTRA.format("vision")),
        _package("av", "av", "no --video for tokens", EXTRA.format("vision")),
        _package("timm", "timm", "no towers of timm", EXTRA.format("towers")),
        _package("torchvision", "torchvision", "no towers of timm", EXTRA.format("towers")),
        _program("slurm", ("sbatch",), "no --engine slurm", "apt-get install slurm-wlm"),
        memory(),
        disk(),
    ]
    return findings
