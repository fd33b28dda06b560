"""`python -m bench.report`, as users type it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench.report.__main__ import main
from bench.report.document_tables import document_tables
from bench.report.peers import PEERS
from bench.report.readme import MAIN_JOB
from bench.report.sharded_section import SHARDED
from bench.report.strategy_tables import DOCUMENTS
from bench.selftest import sharded_run
from bench.selftest.documents.markdown import documented
from bench.selftest.recorded_run import Runs, content

pytest.importorskip("altair", reason="pages want the extra: pip install '.[report]'")

ROOT = Path(__file__).parents[2]


def test_the_page_of_a_named_run_is_made_again(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    for number in (1, 2, 3):
        runs.write(number)
    done = subprocess.run(
        (sys.executable, "-m", "bench.report", "0002", "--storage", tmp_path, "--report", tmp_path / "page"),
        cwd=ROOT,
        text=True,
        capture_output=True,
        check=True,
    )
    assert done.stdout.strip() == str(tmp_path / "page" / "index.html")
    text = (tmp_path / "page" / "index.html").read_text()
    assert "<title>Weight loading: run 0002, failed</title>" in text
    # Its history ends with it.
    assert "failed-0001_run" in text
    assert "failed-0003_run" not in text


def test_the_readme_gets_the_table_and_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "results").mkdir()
    Runs(tmp_path / "results").write(1)
    readme = "# Title\n<!-- run 0000_x -->\nold\n<!-- end of run -->\nrest\n"
    (tmp_path / "README.md").write_text(readme)
    main(["0001", "--readme"], tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert text.startswith(
        "# Title\n<!-- run failed-0001_run -->\n```text\nsmall: model S = 953.7 MiB (1,000,000,000 bytes)"
    )
    assert text.endswith("<!-- end of run -->\nrest\n")
    assert "](results/picture.svg)" in text
    picture = (tmp_path / "results" / "picture.svg").read_text()
    assert "baseline-small: device memory peaks at 2,000,000,000 bytes" in picture
    assert "currentColor" not in picture
    assert "<title>Weight loading: run 0001" in (tmp_path / "results" / "main-job.html").read_text()
    assert not (tmp_path / "results" / "report").exists()


def test_the_sharded_loads_of_a_run_are_written_into_their_document(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "results").mkdir()
    runs = Runs(tmp_path / "results")
    runs.write(1, benchmarks=sharded_run.benchmarks(), problems=[])
    runs.write(2)
    text = "# Title\n<!-- sharded 0000_x -->\nold\n<!-- end of sharded -->\nrest\n"
    document = tmp_path / "results" / "sharded.md"
    document.write_text(text)
    with pytest.raises(SystemExit, match="2"):
        main(["--sharded", "0001", "0002"], tmp_path)
    assert "--sharded: run 0002 has no sharded loads" in capsys.readouterr().err
    assert document.read_text() == text
    main(["--sharded", "0001"], tmp_path)
    text = document.read_text()
    assert text.startswith(
        "# Title\n<!-- sharded failed-0001_run -->\n```text\nsmall: model S = 953.7 MiB (1,000,000,000 bytes)"
    )
    assert text.endswith("<!-- end of sharded -->\nrest\n")


def test_the_documented_commands_write_the_documents_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    written = [*(section.document for section in (MAIN_JOB, PEERS, SHARDED)), *document_tables()]
    written += [document for document in DOCUMENTS if document not in written]
    for document in written:
        emptied = re.sub(r"( -->\n).*?(<!-- end of )", r"\1\2", (ROOT / document).read_text(), flags=re.DOTALL)
        (tmp_path / document).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / document).write_text(emptied)
    for words in (
        documented("python -m bench.report 0010"),
        documented("python -m bench.report 0010 --readme"),
        documented("python -m bench.report --peers 0011 0012 0013 0014 0016 0015"),
        documented("python -m bench.report --sharded 0018 0017 0021"),
        documented("python -m bench.report --tables"),
    ):
        assert words[:3] == ["python", "-m", "bench.report"]
        main([*words[3:], "--storage", str(ROOT / "results"), "--report", str(tmp_path / "report")], tmp_path)
    assert (tmp_path / "report" / "index.html").exists()
    for document in written:
        assert (tmp_path / document).read_text() == (ROOT / document).read_text()


def test_a_readme_without_the_section_is_left_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "results").mkdir()
    Runs(tmp_path / "results").write(1)
    (tmp_path / "README.md").write_text("# Title\n")
    with pytest.raises(SystemExit):
        main(["0001", "--readme"], tmp_path)
    assert "<!-- run NAME ... -->" in capsys.readouterr().err
    assert not (tmp_path / "results" / "picture.svg").exists()
    assert (tmp_path / "README.md").read_text() == "# Title\n"


def test_without_the_extra_it_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "altair", None)
    with pytest.raises(SystemExit):
        main(["0001"])
    assert "pip install '.[report]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("0007",), "there is no run 0007; recorded are: 0001, 0002, 0002"),
        ((), "there is no run that passed; recorded are: 0001, 0002, 0002"),
        (("0001", "--report", "file"), "File exists"),
        (("0002",), "0002 is more than one run; name a file: one/failed-0002_run.json, two/failed-0002_run.json"),
        (("damaged.json",), "damaged.json cannot be read"),
        (("fifo.json",), "fifo.json is no file but a FIFO"),
        (("zero.json", "--peers", "zero.json"), "zero.json is no file but a device"),
        (("deep.json",), "deep.json cannot be read: its JSON nests too deep"),
        (("timeline.json",), "timeline.json is damaged: benchmarks[0].extra_info.timeline is 'x', and not an object"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(
    tmp_path: Path, arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Runs(tmp_path).write(1)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        Runs(tmp_path / name).write(2)
    for name in ("file", "damaged.json"):
        (tmp_path / name).write_text("{")
    os.mkfifo(tmp_path / "fifo.json")
    (tmp_path / "zero.json").symlink_to("/dev/zero")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    damaged = content(1)
    damaged["benchmarks"][0]["extra_info"]["timeline"] = "x"
    (tmp_path / "timeline.json").write_text(json.dumps(damaged))
    there = [str(tmp_path / one) if (tmp_path / one).exists() else one for one in arguments]
    with pytest.raises(SystemExit, match="2"):
        main([*there, "--storage", str(tmp_path)])
    assert said in capsys.readouterr().err.splitlines()[-1]
