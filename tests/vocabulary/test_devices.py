from pathlib import Path

import pytest

from workbench.vocabulary.devices import (
    DEVICES,
    DTYPES,
    FIGURES,
    device,
    entry_of,
    load_device_file,
)
from workbench.vocabulary.errors import RequestError

CARDS = [name for name in DEVICES if name != "cpu"]

CARD = """
peak_flops: {bfloat16: 1.0e+14, float16: 1.0e+14, float32: 1.0e+13, float64: 1.0e+12}
bandwidth_bytes_per_s: 1.5e12
total_bytes: 31.5 GiB
context_bytes: 400 MiB
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "my-card.yaml"
    path.write_text(text)
    return path


def test_the_promised_devices_are_there() -> None:
    assert set(DEVICES) == {
        "h100-80gb",
        "h200-141gb",
        "a100-80gb",
        "a100-40gb",
        "b200-192gb",
        "l40s-48gb",
        "rtx-4090-24gb",
        "cpu",
    }


@pytest.mark.parametrize("name", DEVICES)
def test_every_figure_has_a_source(name: str) -> None:
    assert set(DEVICES[name].sources) == set(FIGURES)


@pytest.mark.parametrize("name", CARDS)
def test_a_card_offers_less_than_its_datasheet_says(name: str) -> None:
    card = DEVICES[name]
    assert card.capacity_bytes is not None
    assert card.memory_bytes is not None
    assert card.total_bytes is not None
    assert card.capacity_bytes < card.total_bytes
    # CUDA reports a few per cent less or more than the round figure of the datasheet, never 10.
    assert 0.95 < card.total_bytes / card.memory_bytes < 1.07
    assert all(
        "http" in card.sources[figure] or card.sources[figure].startswith("measured:")
        for figure in FIGURES
    )


@pytest.mark.parametrize("name", CARDS)
def test_peaks_are_dense_and_ordered(name: str) -> None:
    card = DEVICES[name]
    bf16, fp16, fp32, fp64 = (card.peak(dtype) for dtype in DTYPES)
    assert bf16 is not None
    assert fp32 is not None
    assert fp64 is not None
    assert bf16 == fp16
    assert bf16 > fp32 >= fp64 > 0
    assert fp32 <= (card.peak("tf32") or 0) < bf16


@pytest.mark.parametrize(
    ("name", "processors", "flops_a_clock"),
    [
        ("h100-80gb", 132, 4096),
        ("h200-141gb", 132, 4096),
        ("a100-80gb", 108, 2048),
        ("a100-40gb", 108, 2048),
        ("rtx-4090-24gb", 128, 512),
    ],
)
def test_a_peak_is_reached_at_its_clock(name: str, processors: int, flops_a_clock: int) -> None:
    peak, clock = DEVICES[name].peak("bfloat16"), DEVICES[name].peak_clock_hz
    assert clock is not None
    assert peak == pytest.approx(processors * flops_a_clock * clock, rel=1e-3)


def test_an_h100_is_an_entry_and_not_80_gib() -> None:
    capacity = DEVICES["h100-80gb"].capacity_bytes
    assert capacity is not None
    assert 78 * 2**30 < capacity < 79 * 2**30


def test_the_cpu_has_reasons_instead_of_figures() -> None:
    cpu = DEVICES["cpu"]
    assert cpu.capacity_bytes is None
    assert cpu.peak("float32") is None
    assert "machine" in cpu.sources["peak_flops"]


def test_unknown_device_names_the_near_ones() -> None:
    with pytest.raises(RequestError, match=r"device 'h100' is unknown; did you mean h100-80gb"):
        device("h100")


def test_a_users_file(tmp_path: Path) -> None:
    card = device(str(write(tmp_path, CARD)))
    assert card.name == "my-card"
    assert card.total_bytes == int(31.5 * 2**30)
    assert card.capacity_bytes == int(31.5 * 2**30) - 400 * 2**20
    assert card.bandwidth_bytes_per_s == 1.5e12
    assert card.sources["peak_flops"].endswith("my-card.yaml")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("float32: 1.0e+13, ", ""), "peak_flops.float32: missing"),
        (("float32: 1.0e+13", "float32: -1.0"), "peak_flops.float32 -1.0: must be at least 1"),
        (("float32: 1.0e+13", "float32: true"), "peak_flops.float32 True: a number is needed"),
        (("float32: 1.0e+13", "float32: .inf"), "peak_flops.float32 inf: must be at most"),
        (("float64", "fp64"), "peak_flops.float64: missing"),
        (("bfloat16: 1.0e+14", "bfloat16: 1.0e+14, int8: 1"), "peak_flops.int8: unknown"),
        (("bandwidth_bytes_per_s: 1.5e12", ""), "bandwidth_bytes_per_s: missing"),
        (("31.5 GiB", "31.5 gigs"), "total_bytes '31.5 gigs': bytes are a whole number"),
        (("400 MiB", "400 GiB"), "context_bytes: leaves nothing"),
        (("31.5 GiB", "9" * 5000 + " GiB"), "total_bytes '9+.*: bytes are a whole number"),
        (("31.5 GiB", "9" * 90), "total_bytes 9+: must be at most"),
        (("31.5 GiB", "2001-99-99"), "total_bytes '2001-99-99': bytes are"),
        (("float32: 1.0e+13", "float32: 5.0e-324"), "peak_flops.float32 5e-324: .*at least 1"),
        (("float32: 1.0e+13", "float32: 1.0e+308"), "peak_flops.float32 1e.308: must be at most"),
        (("float32: 1.0e+13", "float32: 013"), "line .*: 013: has a leading zero"),
        (("total_bytes", "total_bytes: 3\ntotal_bytes"), "line .*: total_bytes: given twice"),
        (("context_bytes", "contxt_bytes"), "context_bytes: missing"),
        (("total_bytes", "speed: 3\ntotal_bytes"), "speed 3: there is no such field"),
        (("peak_flops: {", "peak_flops: [{"), "line .*not plain YAML"),
        ((CARD, "- 1"), "a device is a mapping"),
    ],
)
def test_a_faulty_file_names_the_field(
    tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    path = write(tmp_path, CARD.replace(*change))
    with pytest.raises(RequestError, match=f"my-card.yaml: {message}") as caught:
        load_device_file(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"absent\.yaml': no such file"):
        device(str(tmp_path / "absent.yaml"))


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("cpu", "cpu"),
        ("NVIDIA H200", "h200-141gb"),
        ("NVIDIA H100 80GB HBM3", "h100-80gb"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090-24gb"),
        ("NVIDIA L40S", "l40s-48gb"),
        ("NVIDIA A100-SXM4-80GB", "a100-80gb"),
        ("NVIDIA A100-SXM4-40GB", "a100-40gb"),
        ("NVIDIA B200", "b200-192gb"),
    ],
)
def test_names_of_drivers(name, entry):
    assert entry_of(name) == entry


def test_an_unknown_card_lists_the_entries():
    with pytest.raises(RequestError, match="h100-80gb"):
        entry_of("NVIDIA T4")


def test_a_card_s_file_says_all_that_it_lacks(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("peak_flops: {bfloat16: x}\ntotal_bytes: 3\ncontext_bytes: 4\nsources: 3\n")
    with pytest.raises(RequestError) as refusal:
        load_device_file(path)
    assert [line.removeprefix(f"{path}: ").partition(":")[0] for line in refusal.value.faults] == [
        "bandwidth_bytes_per_s",
        "sources",
        "peak_flops.bfloat16 'x'",
        "context_bytes",
    ]
