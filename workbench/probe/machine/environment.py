"""What a run was made on and with. Torch is not imported: its build is read from its files."""

import ast
import ctypes
import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from workbench.probe.machine.nvml import Nvml
from workbench.version import PACKAGE, __version__
from workbench.vocabulary.cell import Cell
from workbench.vocabulary.errors import RequestError
from workbench.vocabulary.record import Environment

_CGROUP = Path("/sys/fs/cgroup")
_LIMITS = ("memory.max", "memory/memory.limit_in_bytes")
_USED = ("memory.current", "memory/memory.usage_in_bytes")


class TorchBuild(NamedTuple):
    """The installed torch and the CUDA version that it was built with; None where missing."""

    version: str | None
    cuda: str | None


@cache
def torch_build() -> TorchBuild:
    """Read from torch's generated ``version.py``, since importing torch takes seconds."""
    try:
        path = distribution("torch").locate_file("torch/version.py")
    except PackageNotFoundError:
        return TorchBuild(None, None)
    facts: dict[str, Any] = {}
    for line in ast.parse(Path(str(path)).read_text(encoding="utf-8")).body:
        if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name):
            facts[line.targets[0].id] = ast.literal_eval(line.value)
        elif isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and line.value:
            facts[line.target.id] = ast.literal_eval(line.value)
    return TorchBuild(facts.get("__version__"), facts.get("cuda"))


def cuda_index(device: str) -> int | None:
    """N of ``cuda:N`` (0 for ``cuda``), None for ``cpu``; RequestError for any other word."""
    if device == "cpu":
        return None
    match = re.fullmatch(r"cuda(?::([0-9]{1,3}))?", device)
    if match is None:
        raise RequestError(f"device {device!r}: a measurement runs on auto, cpu, cuda or cuda:N")
    return int(match[1] or 0)


def num_gpus(nvml: Nvml) -> int:
    """How many cards CUDA shows this process; torch is asked only where NVML is absent."""
    if nvml.reason is None:
        return len(nvml.visible())
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    return int(import_module("torch").cuda.device_count())


def resolve_device(device: str, nvml: Nvml | None = None) -> str:
    """``auto`` becomes ``cuda`` where a card and a torch built for it are found, else ``cpu``.

    Any other word is returned as it is once the device is there; RequestError says what is not.
    """
    nvml = nvml or Nvml()
    if device == "auto":
        return "cuda" if torch_build().cuda and num_gpus(nvml) else "cpu"
    index = cuda_index(device)
    if index is None:
        return device
    build = torch_build()
    if build.version is None:
        raise RequestError(f"device {device!r}: torch is not installed; use cpu or install torch")
    if build.cuda is None:
        raise RequestError(f"device {device!r}: torch {build.version} has no CUDA; use cpu")
    count = num_gpus(nvml)
    if index >= count:
        sight = f"this process sees {count} GPU{'s' * (count != 1)}"
        raise RequestError(f"device {device!r}: {nvml.reason or sight}; use cpu or a lower number")
    return device


def device_name(device: str, nvml: Nvml | None = None) -> str:
    """The driver's name for ``cuda`` or ``cuda:N`` (``NVIDIA H200``), ``cpu`` for ``cpu``."""
    nvml = nvml or Nvml()
    index = cuda_index(resolve_device(device, nvml))
    if index is None:
        return "cpu"
    return str(_gpu_facts(index, nvml)["gpu"])


def _gpu_facts(index: int, nvml: Nvml) -> dict[str, Any]:
    facts = {
        "num_gpus": num_gpus(nvml),
        "driver": nvml.ask("nvmlSystemGetDriverVersion").value,
        "cuda": torch_build().cuda,
    }
    if nvml.reason is None:
        card = nvml.visible()[index]
        name = nvml.ask("nvmlDeviceGetName", card).value
        memory = nvml.ask("nvmlDeviceGetMemoryInfo", card).value
        if name is not None and memory is not None:
            return {**facts, "gpu": name, "gpu_memory_bytes": int(memory.total)}
    card = import_module("torch").cuda.get_device_properties(index)
    return {**facts, "gpu": card.name, "gpu_memory_bytes": int(card.total_memory)}


def num_threads() -> int:
    """The threads that torch starts with: ``OMP_NUM_THREADS``, else the cores of this process."""
    setting = os.environ.get("OMP_NUM_THREADS", "")
    return int(setting) if setting.isdecimal() and int(setting) else len(os.sched_getaffinity(0))


def _first_number(names: tuple[str, ...]) -> int | None:
    for name in names:
        path = _CGROUP / name
        if path.exists():
            text = path.read_text().strip()
            return int(text) if text.isdecimal() else None
    return None


def total_memory_bytes() -> int:
    """The machine's memory, or the control group's limit where that is lower."""
    total = psutil.virtual_memory().total
    return min(total, _first_number(_LIMITS) or total)


def free_memory_bytes() -> int:
    """What this process could still take: free on the machine and within the control group."""
    free = psutil.virtual_memory().available
    limit = _first_number(_LIMITS)
    if limit is None:
        return free
    return max(0, min(free, limit - (_first_number(_USED) or 0)))


def _os() -> str:
    kernel = f"{platform.system()} {platform.release()}"
    try:
        return f"{platform.freedesktop_os_release()['PRETTY_NAME']}, {kernel}"
    except (OSError, KeyError):
        return kernel


def _cpu() -> str | None:
    text = Path("/proc/cpuinfo").read_text(errors="replace")
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return match[1].strip() if match else platform.processor() or platform.machine() or None


@cache
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    command = ["git", "-C", str(PACKAGE), *arguments]
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return process.stdout.strip() if process.returncode == 0 else None


@cache
def commit() -> str | None:
    """The commit of the working tree that this code runs from, ``-dirty`` when it was edited.

    None where git or a working tree is missing, or where the code is only installed inside one.
    """
    head = _git("rev-parse", "HEAD")
    if head is None or _git("ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    edited = _git("status", "--porcelain", "--untracked-files=no", "--", ".")
    return f"{head}-dirty" if edited else head


def begun(cell: Cell, device: str, nvml: Nvml | None = None) -> dict[str, Any]:
    """The fields that a measured record of ``cell`` has before anything has run."""
    return {
        "cell": cell,
        "source": "measured",
        "device": device_name(device, nvml),
        "environment": environment(device, nvml),
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def environment(device: str, nvml: Nvml | None = None) -> Environment:
    """The facts of this machine; those of a GPU only where ``device`` is one. Missing is None."""
    nvml = nvml or Nvml()
    index = cuda_index(resolve_device(device, nvml))
    return Environment(
        host=platform.node() or None,
        os=_os(),
        cpu=_cpu(),
        num_threads=num_threads(),
        memory_bytes=total_memory_bytes(),
        python=platform.python_version(),
        torch=torch_build().version,
        transformers=_version("transformers"),
        workbench=__version__,
        commit=commit(),
        **({} if index is None else _gpu_facts(index, nvml)),
    )
