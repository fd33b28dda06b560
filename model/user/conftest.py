from collections.abc import Iterator
from pathlib import Path

import pytest

from model.user.local_hub import LocalHub, in_place_of_the_hub


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[LocalHub]:
    """A hub on this machine, with the repository `acme/net` in a folder that is still empty."""
    pytest.importorskip("huggingface_hub", minversion="1", reason="it makes the requests")
    (tmp_path / "there" / "net").mkdir(parents=True)
    with in_place_of_the_hub({"acme/net": tmp_path / "there" / "net"}) as served:
        yield served
