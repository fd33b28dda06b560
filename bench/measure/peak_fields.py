"""Peaks of a measured load, as fields of a record."""

from bench.meters.measure import Measurement
from bench.record.record import Fields, ratio


def peaks(measurement: Measurement, state_bytes: int) -> Fields:
    """Return the fields of a record that a measurement fills; `state_bytes` is S."""
    device, host = measurement.device, measurement.host
    total = host.total_bytes if host.total_peak_bytes is None else host.total_peak_bytes
    after = measurement.kept.retained
    return {
        "device_requested_peak_bytes": device.requested_bytes,
        "device_allocated_peak_bytes": device.allocated_bytes,
        "device_reserved_peak_bytes": device.reserved_bytes,
        "device_peak_ratio": ratio(device.requested_bytes, state_bytes),
        "device_driver_peak_bytes": measurement.driver_bytes,
        "host_private_peak_bytes": host.private_bytes,
        "host_file_peak_bytes": host.file_bytes,
        "host_pinned_peak_bytes": device.pinned_bytes,
        "host_total_peak_bytes": total,
        "host_peak_ratio": ratio(host.private_bytes, state_bytes),
        "minor_faults": measurement.minor_faults,
        "major_faults": measurement.major_faults,
        "read_bytes": measurement.read_bytes,
        "retained_bytes": after[0] if after else None,
        "retained_again_bytes": after[1] if len(after) > 1 else None,
        "timeline": measurement.timeline.as_record(),
    }
