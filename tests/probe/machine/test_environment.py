import subprocess
import sys
from pathlib import Path

import pytest

import workbench
from tests.probe.fake_nvml import FakeNvml
from workbench.probe.machine import environment as module
from workbench.probe.machine.environment import (
    commit,
    cuda_index,
    device_name,
    environment,
    free_memory_bytes,
    num_threads,
    resolve_device,
    torch_build,
    total_memory_bytes,
)
from workbench.probe.machine.nvml import Nvml
from workbench.vocabulary.errors import RequestError


@pytest.fixture
def cuda_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """A torch that could use a card: the build is a fact of the installation, not of the test."""
    monkeypatch.setattr(module, "torch_build", lambda: module.TorchBuild("2.13.0", "13.0"))
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
        monkeypatch.delenv(name, raising=False)


def test_environment_does_not_import_torch() -> None:
    script = (
        "import sys; from workbench.probe.machine.environment import environment;"
        "facts = environment('auto'); assert facts.torch; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_the_torch_build_is_what_torch_says() -> None:
    import torch

    assert torch_build().version == torch.__version__
    assert torch_build().cuda == torch.version.cuda


def test_facts_of_this_machine() -> None:
    facts = environment("cpu")
    assert facts.host
    assert facts.cpu
    assert facts.os
    assert facts.workbench == workbench.__version__
    assert facts.python == ".".join(str(part) for part in sys.version_info[:3])
    assert facts.memory_bytes == total_memory_bytes()
    assert 0 < free_memory_bytes() < total_memory_bytes()
    assert (facts.gpu, facts.num_gpus, facts.cuda) == (None, 0, None)


def test_threads_follow_openmp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert num_threads() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    assert num_threads() >= 1


def test_a_control_group_limits_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CGROUP", tmp_path)
    (tmp_path / "memory.max").write_text("100000000\n")
    (tmp_path / "memory.current").write_text("60000000\n")
    assert total_memory_bytes() == 100_000_000
    assert free_memory_bytes() == 40_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert total_memory_bytes() > 100_000_000


def test_the_commit_is_of_this_working_tree() -> None:
    folder = Path(workbench.__file__).parent
    head = subprocess.run(
        ["git", "-C", folder, "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    # Empty where this copy of the code is no working tree.
    assert (commit() or "").removesuffix("-dirty") == head.stdout.strip()


def test_code_outside_a_working_tree_has_no_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PACKAGE", tmp_path)
    assert commit.__wrapped__() is None


@pytest.mark.parametrize("word", ["gpu", "cuda:", "cuda:x", "cuda:-1", "CUDA", "h100-80gb", ""])
def test_other_words_are_refused(word: str) -> None:
    with pytest.raises(RequestError, match="auto, cpu, cuda or cuda:N"):
        resolve_device(word)


def test_words_for_devices() -> None:
    assert [cuda_index(word) for word in ("cpu", "cuda", "cuda:7")] == [None, 0, 7]
    assert device_name("cpu") == "cpu"


@pytest.mark.gpu
@pytest.mark.skipif(resolve_device("auto") == "cpu", reason="needs an NVIDIA GPU and CUDA's torch")
def test_cuda_and_nvml_name_the_same_card() -> None:
    import torch

    card = torch.cuda.get_device_properties(0)
    facts = environment("cuda")
    assert facts.gpu == device_name("cuda:0") == card.name
    assert facts.num_gpus == torch.cuda.device_count()
    # NVML counts what the driver reserves as well.
    assert facts.gpu_memory_bytes is not None
    assert card.total_memory <= facts.gpu_memory_bytes < 1.05 * card.total_memory


def test_cuda_without_a_cuda_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "torch_build", lambda: module.TorchBuild("2.13.0+cpu", None))
    assert resolve_device("auto") == "cpu"
    with pytest.raises(RequestError, match=r"device 'cuda': torch .* has no CUDA; use cpu"):
        device_name("cuda")


@pytest.mark.usefixtures("cuda_build")
class TestCards:
    def test_names_and_facts(self) -> None:
        nvml = Nvml(FakeNvml(["NVIDIA H200", "NVIDIA H200"]))
        assert resolve_device("auto", nvml) == "cuda"
        assert device_name("cuda:1", nvml) == "NVIDIA H200"
        facts = environment("cuda", nvml)
        assert (facts.gpu, facts.num_gpus, facts.driver) == ("NVIDIA H200", 2, "580.1")
        assert facts.gpu_memory_bytes == 141 * 2**30
        assert facts.cuda == "13.0"

    def test_no_such_card(self) -> None:
        nvml = Nvml(FakeNvml(["NVIDIA H200"]))
        with pytest.raises(RequestError, match="'cuda:1': this process sees 1 GPU; use cpu"):
            resolve_device("cuda:1", nvml)

    def test_no_nvml(self) -> None:
        nvml = Nvml(FakeNvml([], broken={"nvmlInit"}))
        assert resolve_device("auto", nvml) == "cpu"
        with pytest.raises(RequestError, match="'cuda': NVML: Driver Not Loaded; use cpu"):
            resolve_device("cuda", nvml)

    @pytest.mark.parametrize(
        ("chosen", "expected"),
        [
            (None, [0, 1, 2]),
            ("2,0", [2, 0]),
            (" 1 , 2 ", [1, 2]),
            ("GPU-11", [1]),
            ("GPU-11,GPU-0", [1, 0]),
            ("GPU-", []),
            ("MIG-7", ["MIG-7"]),
            ("0,3,1", [0]),
            ("-1", []),
            ("", []),
        ],
    )
    def test_visible_cards(
        self, monkeypatch: pytest.MonkeyPatch, chosen: str | None, expected: list[int]
    ) -> None:
        if chosen is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
        assert Nvml(FakeNvml(["NVIDIA H200"] * 3)).visible() == expected

    def test_mixed_cards_in_bus_order(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
        nvml = Nvml(FakeNvml(["NVIDIA T400", "NVIDIA H200"]))
        assert device_name("cuda:0", nvml) == "NVIDIA T400"
        assert device_name("cuda:1", nvml) == "NVIDIA H200"


def test_the_fingerprint_ignores_host_and_commit() -> None:
    facts = environment("cpu")
    elsewhere = facts.model_copy(update={"host": "another", "commit": None})
    assert facts.fingerprint == elsewhere.fingerprint
    assert facts.fingerprint != facts.model_copy(update={"num_threads": 64}).fingerprint
