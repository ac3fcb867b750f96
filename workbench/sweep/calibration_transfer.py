"""A calibration of one card for another with the same processor and other memory."""

from workbench.vocabulary.calibration import Calibration
from workbench.vocabulary.calibration_parts import Fitted
from workbench.vocabulary.devices import Device
from workbench.vocabulary.devices import device as device_entry
from workbench.vocabulary.errors import RequestError


def carried(calibration: Calibration, name: str) -> Calibration:
    """``calibration`` for the device entry ``name``: bytes/s by the ratio of datasheet bandwidths.

    FLOP/s and overheads stay as they are.

    Errors stay those of the card that was measured: nothing was measured on the other one. Raises
    RequestError where the datasheets do not say that the processors are the same.
    """
    here, there = device_entry(calibration.device), device_entry(name)
    if here.name == there.name:
        raise RequestError(f"carry_to {name!r}: the records are of this device already")
    if here.peak_flops is None or here.peak_flops != there.peak_flops:
        raise RequestError(
            f"carry_to {name!r}: needs a device with the processor of {here.name}, of the same"
            " peaks; how near another one comes to its peaks has to be measured on it"
        )
    ratio = _bandwidth(there) / _bandwidth(here)
    return calibration.model_copy(
        update={
            "device": there.name,
            "carried_from": here.name,
            "bytes_per_s": {
                kind: _scaled(rate, ratio) for kind, rate in calibration.bytes_per_s.items()
            },
        }
    )


def _bandwidth(entry: Device) -> float:
    if entry.bandwidth_bytes_per_s is None:
        raise RequestError(f"carry_to: {entry.name} has no bandwidth_bytes_per_s in its entry")
    return entry.bandwidth_bytes_per_s


def _scaled(rate: Fitted, ratio: float) -> Fitted:
    scaled = {name: getattr(rate, name) * ratio for name in ("value", "low", "high")}
    return rate.model_copy(update=scaled)
