"""How busy the card was, from a list of its kernels: gaps, overlaps, ranges, other cards."""

from types import SimpleNamespace

import pytest
from torch.autograd import DeviceType

from workbench.probe.measuring.busy import device_spans, host_bound, union


def event(start, duration, card=0, device=DeviceType.CUDA, named=False):
    """A kernel as torch's profiler lists it, in ns."""
    return SimpleNamespace(
        start_ns=lambda: start,
        duration_ns=lambda: duration,
        device_type=lambda: device,
        device_index=lambda: card,
        is_user_annotation=lambda: named,
    )


def test_the_card_is_busy_where_any_kernel_or_copy_runs():
    events = [
        event(100, 50),
        event(120, 10),  # a copy under a kernel, on another stream
        event(140, 30),  # one that goes on longer
        event(300, 100),
        event(0, 1000, named=True),  # a range with a name spans the gaps
        event(0, 1000, card=1),
        event(0, 1000, device=DeviceType.CPU),
    ]
    spans = device_spans(events, 0)
    assert len(spans) == 4
    assert union(spans) == 170 - 100 + 100
    assert union([]) == 0


@pytest.mark.parametrize(("share", "flagged"), [(1.0, False), (0.9, False), (0.43, True)])
def test_under_nine_tenths_the_record_is_host_bound(share, flagged):
    flags = host_bound(share)
    said = (
        "host_bound: the card was busy for 43% of an iteration (under 90%), so that time_s tells "
        "of the host that feeds it"
    )
    assert flags == ([said] if flagged else [])
