"""Loads that are measured directly, and checked against their bounds, where a run of the suite would add nothing."""

from collections.abc import Callable

from bench.measure.bounds import peak_checks
from bench.measure.case import Case
from bench.measure.expected import blank_record
from bench.measure.leaks import leaks
from bench.measure.peak_fields import peaks
from bench.meters.measure import Measurement
from bench.record.record import FIELDS, Record


def checked(load: Callable[[Case], Measurement], case: Case) -> Record:
    """Measure a load, assert that it takes what its bounds say, and return its record.

    It takes them to the byte where it is planned, or where an allocator is asked.
    """
    measurement = load(case)
    record = blank_record(case).with_fields(peaks(measurement, blank_record(case).state_bytes))
    for gate in peak_checks(case.strategy, record):
        assert gate.breach is None
        # Blocks of huge pages start in the first of one more; a model of the user's takes what its skeleton does.
        exact = case.planned and case.user_model is None and (case.strategy_name, case.device) != ("streamed", "cpu")
        assert gate.measured == gate.bound or not (exact or FIELDS[gate.figure].exact), gate
    assert leaks(measurement.kept, record) == []
    return record
