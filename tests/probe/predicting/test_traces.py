"""Which traces are kept for the next prediction, and that they are those of a first one."""

from pathlib import Path

from PIL import Image

from workbench.probe.counting.allocator import allocator_of
from workbench.probe.counting.trace import trace
from workbench.probe.predicting import traces
from workbench.probe.predicting.traces import forget, trace_of
from workbench.vocabulary.cell import make_cell
from workbench.vocabulary.devices import device
from workbench.vocabulary.pictures import make_pictures

ADAPTERS = {"model": "qwen3-vl-2b", "scope": "lvlm", "pass": "train", "lora": "r=4"}
CARD = allocator_of(device("rtx-4090-24gb"))


def test_images_of_a_size_are_traced_once() -> None:
    """Also the trace that computes nothing twice, of which model_flops of adapters are."""
    forget()
    cell = make_cell(num_visual=880, **ADAPTERS, checkpoint=True, tiled=True)
    pictures = make_pictures(resolution="1280x720")
    first = trace_of(cell, CARD, pictures)
    alone = trace(cell, CARD, regions=True, pictures=pictures)
    assert (first.model_flops, first.flops) == (alone.model_flops, alone.flops)
    assert first.operators == alone.operators
    assert trace_of(cell.replace(zero=3, world_size=8), CARD, pictures) is first
    plain = trace_of(cell.replace(checkpoint=False, tiled=False), CARD, pictures)
    assert plain.flops == first.model_flops
    assert traces._cached_trace.cache_info().misses == 2


def test_what_a_file_shows_is_looked_at_each_time(tmp_path: Path) -> None:
    forget()
    file = tmp_path / "a.png"
    pictures = make_pictures(images=(str(file),))
    cell = make_cell(num_visual=64, **{**ADAPTERS, "pass": "forward", "lora": None})
    Image.new("RGB", (256, 256)).save(file)
    square = trace_of(cell, CARD, pictures)
    Image.new("RGB", (512, 128)).save(file)
    assert trace_of(cell, CARD, pictures) is not square
    assert traces._cached_trace.cache_info().misses == 0
