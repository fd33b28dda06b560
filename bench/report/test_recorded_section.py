"""Documents show exactly what their recorded runs say."""

import re
from pathlib import Path

import pytest

from bench.report.peers import PEERS
from bench.report.readme import MAIN_JOB
from bench.report.recorded import recorded
from bench.report.recorded_section import RecordedSection
from bench.report.sharded_section import SHARDED
from bench.selftest.documents.markdown import documents

ROOT = Path(__file__).parents[2]

SECTIONS = [MAIN_JOB, PEERS, SHARDED]


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.name)
def test_a_section_shows_exactly_its_runs(section: RecordedSection) -> None:
    text = (ROOT / section.document).read_text()
    names = section.runs(text)
    assert names
    runs = [recorded(next((ROOT / "results").glob(f"*/{name}.json"))) for name in names]
    assert section.replaced(text, runs) == text
    assert not re.search(r"/(home|tmp|root)/", section.rendered(runs))


def test_no_other_document_has_a_section() -> None:
    for name, text in documents().items():
        shown = {section.name for section in SECTIONS if section.runs(text)}
        assert shown == {one.name for one in SECTIONS if one.document == name}


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.name)
def test_a_document_without_the_section_is_refused(section: RecordedSection) -> None:
    assert section.runs("# A document") == []
    with pytest.raises(ValueError, match=f"{section.document} has no section between `<!-- {section.name} NAME"):
        section.replaced("# A document", [])
