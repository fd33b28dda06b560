from pathlib import Path

import pytest

from bench.report.redact import known_folders, without_folders

FOLDERS = known_folders(Path("/data/x 1"), Path("/data"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("'/srv/me/.cache/a-1/model.pt' is cut at 3/4", "'model.pt' is cut at 3/4"),
        ("file:///srv/me/x.pt, file:/srv/y.pt", "x.pt, y.pt"),
        ("//srv/me/x and /a,b/c/x.pt", "x and x.pt"),
        ("open('/data/x 1/y z/w.pt')", "open('y z/w.pt')"),
        (f"{Path.home()}/secret/key: no", "key: no"),
        (f"'{Path.home()}' is full", "'' is full"),
        ("S/L is 1/2, and/or a/b.c ~/x", "S/L is 1/2, and/or a/b.c ~/x"),
        ("blocks.0/1.weight differs", "blocks.0/1.weight differs"),
    ],
)
def test_folders_are_left_out_and_nothing_else(text: str, told: str) -> None:
    assert without_folders(text, FOLDERS) == told


def test_a_folder_is_not_the_beginning_of_another() -> None:
    assert without_folders("/database", known_folders(Path("/data"))) == "database"
