"""The fixtures of the benchmark tests."""

from types import SimpleNamespace
from typing import Any, cast

from bench.measure.case import Case
from bench.plugin import fixtures


def test_the_record_of_an_interrupted_benchmark_is_there_before_its_end() -> None:
    benchmark: Any = SimpleNamespace(extra_info={})
    generator = cast("Any", fixtures.record).__wrapped__(Case("streamed", "tiny", "cpu", "float32"), benchmark)
    record = next(generator)
    assert (benchmark.extra_info["strategy"], benchmark.extra_info["first_logits_seconds"]) == ("streamed", None)
    record.first_logits_seconds = 1.5
    next(generator, None)
    assert benchmark.extra_info["first_logits_seconds"] == 1.5
