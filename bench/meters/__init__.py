"""Meters of memory and time. They import no strategy: they are given functions."""

from bench.meters.devices import KINDS, device_meter, device_named, kind_of, recorded_kind

__all__ = ["KINDS", "device_meter", "device_named", "kind_of", "recorded_kind"]
