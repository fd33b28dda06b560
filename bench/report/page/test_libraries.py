from pathlib import Path

import pytest

pytest.importorskip("altair", reason="pages want the extra: pip install '.[report]'")
pytest.importorskip("vl_convert", reason="pages want the extra: pip install '.[report]'")

from bench.report.page import libraries


def test_the_libraries_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with libraries.bundle(tmp_path) as script:
        made = script()
    assert "vegaEmbed" in made
    assert "</script" not in made
    [kept] = tmp_path.iterdir()
    monkeypatch.setattr("sys.executable", "/nowhere")
    with libraries.bundle(tmp_path) as script:
        assert script() == made
    # What is not the whole of it is made again.
    kept.write_text(made[:100])
    with pytest.raises(FileNotFoundError), libraries.bundle(tmp_path) as script:
        script()


def test_libraries_cannot_end_the_script_that_they_are_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "_BUNDLE", "print('</script><b>')")
    with libraries.bundle(tmp_path) as script:
        assert script() == "<\\/script><b>\n"


def test_a_cache_that_cannot_be_written_to_costs_time_only(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with libraries.bundle(tmp_path / "file") as script:
        assert libraries.MARK in script()


def test_libraries_that_cannot_be_made_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "_BUNDLE", "raise SystemExit(3)")
    with pytest.raises(RuntimeError, match="status 3"), libraries.bundle(tmp_path) as script:
        script()
    assert list(tmp_path.iterdir()) == []
