"""Values of a case that are known before the load: its bounds, the memory that it needs, its blank record."""

from dataclasses import asdict, replace
from functools import singledispatch

import psutil

from bench.measure.building import Built, built, left_by_model
from bench.measure.case import Case
from bench.measure.terms import Terms, conversion_slot_bytes
from bench.meters import device_meter
from bench.meters.child import RetainedMemory
from bench.meters.roofline import DISK, MAPPING, MEMORY
from bench.record.record import Fields, Record, ratio
from model.layouts.foreign import ALL_LAYOUTS, PLANNED_SETTINGS


@singledispatch
def bound_bytes(case: Case, figure: str) -> int | None:
    """Return the bound of a figure of the record; None where theory says nothing."""
    expression = case.strategy.bounds.of_peaks(on_host=case.kind.is_host).get(figure)
    return None if expression is None else terms(case).peak_bound(figure, expression)


def terms(case: Case) -> Terms:
    """Return what its bounds are computed from."""
    specification, build = case.specification, building(case)
    footprint, saved = specification.footprint, specification.saved
    build_peak_bytes = build.peak_bytes if build else None
    if case.cast and case.user_model is None and case.strategy.builds:
        build_peak_bytes = saved.built_bytes
    return Terms(
        state_bytes=footprint.state_bytes,
        largest_tensor_bytes=footprint.largest_tensor_bytes,
        largest_file_bytes=saved.largest_file_bytes,
        checkpoint_bytes=saved.checkpoint_bytes,
        missing_bytes=footprint.state_bytes - saved.ends_bytes,
        largest_saved_bytes=saved.largest_bytes,
        converted_bytes=saved.converted_bytes,
        converted_to_bytes=saved.converted_to_bytes,
        mapped_bytes=saved.mapped_bytes,
        largest_converted_to_bytes=saved.largest_converted_to_bytes,
        largest_conversion_bytes=saved.largest_conversion_bytes,
        conversion_slot_bytes=conversion_slot_bytes(
            saved.checkpoint_bytes,
            saved.largest_converted_bytes,
            on_host=case.kind.is_host,
            beside_bytes=footprint.nonpersistent_bytes,
        ),
        tensors=footprint.tensors,
        build_peak_bytes=build_peak_bytes,
        built_private_bytes=build.private_bytes if build else None,
        built_file_bytes=build.file_bytes if build else None,
        # Buffers that no checkpoint has: the suite's strategies give them their values.
        beside_bytes=footprint.nonpersistent_bytes if case.strategy.is_stated else None,
    )


def building(case: Case) -> Built | None:
    """Return what building the user's model takes of the host, or its skeleton, whichever the strategy builds."""
    if case.user_model is None or not case.strategy.is_stated:
        return None
    beside = 0 if case.strategy.builds else case.specification.footprint.nonpersistent_bytes
    found = built(case.user_model, planned=case.planned, on_meta=not case.strategy.builds)
    # The bound of a load has these already.
    return replace(found, private_bytes=max(found.private_bytes - beside, 0))


def left_without_strategy(case: Case) -> RetainedMemory | None:
    """Return what the user's model leaves of memory with no strategy; a loader of the user's is rehearsed with it."""
    if case.user_model is None or not case.strategy.is_stated:
        return None
    where = {"planned": case.planned, "builds": case.strategy.builds, "asked": case.has_values}
    return left_by_model(case.user_model, case.device, **where)


@singledispatch
def shortage(case: Case) -> str | None:
    """Return which memory is too small for the load, in a line; None where there is enough of both."""
    if case.planned:
        return None
    for kind, takes, free in (
        ("host", bound_bytes(case, "host_private_peak_bytes"), psutil.virtual_memory().available),
        ("device", bound_bytes(case, "device_requested_peak_bytes"), device_meter(case.device).free_bytes()),
    ):
        if takes is not None and free is not None and takes > free:
            return f"needs {takes / 1e9:.1f} GB of {kind} memory, and {free / 1e9:.1f} GB are free"
    return None


@singledispatch
def blank_record(case: Case) -> Record:
    """Return a record with everything that is known before anything is measured."""
    state = case.specification.footprint.state_bytes
    return Record(
        **asdict(terms(case)),
        device=case.device,
        strategy=case.strategy_name,
        loader=case.strategy.loader,
        size=case.size,
        model=case.user_model.factory.display_name if case.user_model else None,
        state_digest=case.user_model.state_digest if case.user_model else None,
        layout=case.layout,
        asked_layout=case.asked_layout or None,
        saved_with=saved_with(case),
        dtype=case.dtype,
        cast=case.cast or None,
        stand_in=case.stand_in,
        planned=case.planned,
        cache=case.cache,
        limit=roofline_kind(case),
        ownership=ownership(case),
        first_use="weights" if case.user_model and case.user_model.make_input is None else "logits",
        peer=case.strategy.peer.as_record() if case.strategy.peer else None,
        device_bound_ratio=ratio(bound_bytes(case, "device_requested_peak_bytes"), state),
        host_bound_ratio=ratio(bound_bytes(case, "host_private_peak_bytes"), state),
        host_file_bound_ratio=ratio(bound_bytes(case, "host_file_peak_bytes"), state),
    )


def saved_with(case: Case) -> Fields | None:
    """Return the settings of the library that saved the checkpoint; None if it has none that a load depends on."""
    settings = ALL_LAYOUTS[case.layout].saved_with
    if case.planned:
        settings = PLANNED_SETTINGS.get(case.layout, settings)
    return dict(settings) if settings else None


def ownership(case: Case) -> str | None:
    """Return where the weights end: `owned` memory, or `mapped` pages of the file; None: nobody says."""
    if case.kind.is_host and not case.strategy.bounds.file and not case.strategy.peer:
        return None
    # What is missing has memory of its own, and may be more than what is mapped.
    if case.kind.is_host and case.specification.missing:
        return None
    # What is converted ends in memory of its own; what need not be stays in the pages of the file.
    in_file = case.strategy.bounds.file in {"S", "W"} and not (case.cast and case.specification.saved.converted)
    return "mapped" if case.kind.is_host and in_file else "owned"


def roofline_kind(case: Case) -> str:
    """Return the kind of the best that the machine can do for such a load: one of `ROOFLINES`."""
    if case.cache == "cold":
        return DISK
    return case.kind.roofline or (MAPPING if ownership(case) == "mapped" else MEMORY)


def as_measured(case: Case, times: Fields) -> Fields:
    """Return the times that are figures: none on a stand-in, whose times are not those of a GPU."""
    return {} if case.stand_in else times
