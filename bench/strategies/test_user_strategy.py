from pathlib import Path

import pytest
import torch

from bench.strategies.user_strategy import user_strategy


def test_a_loader_that_returns_no_model_says_so(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def load(build, path, device):\n    build()\n")
    load = user_strategy(f"{tmp_path / 'mine.py'}:load", None).load
    with pytest.raises(TypeError, match=r"of type NoneType, not a torch\.nn\.Module; return the model$"):
        load(torch.nn.Identity, tmp_path / "model.pt", torch.device("cpu"))
