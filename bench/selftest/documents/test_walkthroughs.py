"""The examples of the documents work as they stand there, and print what stands beside them."""

import re
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import nn

from bench.selftest.documents.conftest import Typed, columns
from bench.selftest.documents.markdown import ROOT, documents, snippets
from bench.strategies import STRATEGIES
from model.checkpoints.making import make
from model.checkpoints.specification import Specification
from model.examine.safetensors_file import file_parts
from model.examine.trust import UntrustedCheckpoint
from model.user.local_hub import local_hub

TAGGER = (
    "pytest bench --model mine.py:tagger --checkpoint run.ckpt --state-key model --example-input mine.py:example "
    '--loader mine.py:usual --loader-bound S -k "not equivalence"'
)
LLAMA = "pytest bench --model my-llama --strategies all,transformers"
QWEN = "pytest bench --plan --model hub:Qwen/Qwen3-8B --device-memory 23GiB"

if not Path("/proc/self/clear_refs").exists():
    pytest.skip("needs Linux's /proc", allow_module_level=True)


def test_the_model_of_a_user(checkout: Path, typed: Typed) -> None:
    [mine] = snippets("bench/README.md")
    (checkout / "mine.py").write_text(mine)
    typed("python mine.py")
    printed = typed(TAGGER, "--strategies mmap_assign -k 'peak_memory or (load_time and usual)'")
    shown = documents()["bench/README.md"]
    for line in printed.splitlines():
        if line.startswith("tagger: "):
            assert line in shown
    measured = columns(printed, "GPU MiB", "verdict")
    assert measured.keys() == {"mmap_assign", "usual"}
    said = columns(
        shown.partition("This takes half a minute and prints:")[2].partition("Least memory")[0], "GPU MiB", "verdict"
    )
    assert measured == {name: said[name] for name in measured}


@pytest.mark.skipif(not find_spec("transformers"), reason="needs transformers: pip install 'transformers>=5'")
@pytest.mark.skipif(not find_spec("accelerate"), reason="wants accelerate: pip install accelerate")
def test_a_llama_of_hugging_face(checkout: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import LlamaConfig  # noqa: PLC0415 - of an extra

    monkeypatch.chdir(checkout)
    [llama] = snippets("README.md")
    exec(llama, {})  # noqa: S102 - as it stands in the document
    taken = ("baseline", "mmap_assign", "transformers")
    printed = typed(LLAMA, f"-k 'peak_memory and ({' or '.join(taken)})'")
    table = documents()["README.md"].partition("It printed this, and three more rows:")[2].partition("Least memory")[0]
    shown = columns(table, "GPU MiB", "RAM MiB", "verdict")
    # Without three rows, to be short.
    assert shown.keys() == (STRATEGIES.keys() | {"transformers"}) - {"per_tensor", "sequential", "meta_sequential"}
    for name, (device, private, verdict) in columns(printed, "GPU MiB", "RAM MiB", "verdict").items():
        assert (device, verdict) == (shown[name][0], shown[name][2])
        # What Python and libraries allocate is not the same in every run.
        assert float(private) == pytest.approx(float(shown[name][1]), abs=12)
    printed = typed(
        "pytest bench --model my-llama --device-memory 23GiB --host-memory 32GiB",
        "--strategies mmap_assign -k test_budget",
    )
    assert columns(printed, "verdict") == {"mmap_assign": ["fits"]}
    printed = typed("weight-loading-bench --model my-llama", "--strategies streamed -k peak_memory")
    assert columns(printed, "verdict") == {"streamed": ["ok"]}
    typed("weight-loading-bench --model my-llama --benchmark-compare", "--strategies streamed -k peak_memory")
    assert len([*checkout.glob("weight-loading/*/*.json")]) == 4
    printed = typed("pytest bench --sharded --model my-llama", "--strategies streamed -k 'peak_memory and fsdp'")
    assert columns(printed, "verdict") == {"streamed": ["ok"]}
    # As Llama 3 8B has it.
    sizes = {"vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32}
    sizes |= {"num_attention_heads": 32, "num_key_value_heads": 8}
    shutil.rmtree(checkout / "my-llama")
    LlamaConfig(**sizes, dtype="bfloat16", architectures=["LlamaForCausalLM"]).save_pretrained(checkout / "my-llama")
    printed = typed("pytest bench --plan --model my-llama/config.json --device-memory 23GiB")
    advice = printed[printed.index("Use ") :].partition("\nIts code")[0]
    assert f"```text\n{advice}\n```" in documents()["README.md"]


RANKS = (
    "pytest bench --sharded --plan --model my-llama/config.json --ranks 8,64 --device-memory 80GiB --host-memory 512GiB"
)


@pytest.mark.skipif(not find_spec("transformers"), reason="needs transformers: pip install 'transformers>=5'")
def test_a_plan_of_ranks_of_hugging_face(checkout: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import LlamaConfig  # noqa: PLC0415 - of an extra

    monkeypatch.chdir(checkout)
    # As Llama 3 70B has it.
    sizes = {"vocab_size": 128256, "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80}
    sizes |= {"num_attention_heads": 64, "num_key_value_heads": 8}
    LlamaConfig(**sizes, dtype="bfloat16", architectures=["LlamaForCausalLM"]).save_pretrained(checkout / "my-llama")
    printed = typed(RANKS, "--strategies load_then_shard,streamed --parallelism fsdp")
    shown = documents()["README.md"].partition("and a recommendation:")[2].partition("```\n\n")[0]
    known = [row for row in ranked(printed) if row["ranks"] == "8" or row["strategy"] == "streamed"]
    assert known == [row for row in ranked(shown) if row["strategy"] != "broadcast"]
    assert "8 devices, divided by fsdp. It takes 16.4 GiB of the 80 GiB of each device" in " ".join(printed.split())
    free = "stay free for activations and the KV cache, which takes 320 KiB for each token of a sequence: at most about"
    assert f"63.6 GiB of each 80 GiB {free} 200,000 tokens on each device." in " ".join(printed.split())


def ranked(text: str) -> list[dict[str, str]]:
    """Return the columns of a table of ranks that the README shows."""
    shown = ("strategy", "split", "ranks", "GPU of 80 GiB", "x share", "node of 512 GiB", "verdict")
    lines = [re.split(r" {2,}", line) for line in text.splitlines()]
    [heading] = [line for line in lines if line[:1] == ["strategy"] and set(shown) <= set(line)]
    rows = (dict(zip(heading, line, strict=True)) for line in lines if len(line) == len(heading) and line != heading)
    return [{name: row[name] for name in shown} for row in rows]


@pytest.mark.skipif(not find_spec("transformers"), reason="needs transformers: pip install 'transformers>=5'")
def test_a_name_on_the_hub_of_hugging_face(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    with local_hub({"Qwen/Qwen3-8B": qwen(tmp_path / "qwen")}) as hub:
        for name, value in hub.environment.items():
            monkeypatch.setenv(name, value)
        # It has the environment of the moment when it is made.
        typed = request.getfixturevalue("typed")
        printed = typed(QWEN, "--strategies mmap_assign")
    shown = documents()["bench/README.md"]
    [sizes] = [line for line in printed.splitlines() if line.startswith("Qwen3-8B: model S = ")]
    assert sizes in shown
    said = columns(shown.partition(sizes)[2].partition("Least memory")[0], "GPU of 23 GiB", "RAM GiB", "verdict")
    assert said.keys() == STRATEGIES.keys()
    assert columns(printed, "GPU of 23 GiB", "RAM GiB", "verdict") == {"mmap_assign": said["mmap_assign"]}


def qwen(folder: Path) -> Path:
    """Make the repository of a model: its configuration, and one file with its header and a hole for its weights."""
    from transformers import Qwen3Config, Qwen3ForCausalLM  # noqa: PLC0415 - of an extra

    sizes = {"vocab_size": 151936, "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36}
    sizes |= {"num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128}
    config = Qwen3Config(**sizes, dtype="bfloat16", tie_word_embeddings=False, architectures=["Qwen3ForCausalLM"])
    config.save_pretrained(folder)
    with torch.device("meta"):
        state = Qwen3ForCausalLM._from_config(config, dtype=torch.bfloat16).state_dict()
    header = b"".join(part for part in file_parts(state) if isinstance(part, bytes))
    with (folder / "model.safetensors").open("wb") as file:
        file.write(header)
        file.truncate(len(header) + sum(tensor.nbytes for tensor in state.values()))
    return folder


def test_recorded_runs_are_read_by_the_suite_and_by_pytest_benchmark(checkout: Path, typed: Typed) -> None:
    shutil.copytree(ROOT / "results", checkout / "results", ignore=shutil.ignore_patterns("report", "*.html"))
    assert " runs from 20" in typed("pytest bench --history")
    assert "0010_" in typed("pytest-benchmark --storage results list")


def test_the_calls_of_strategies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for layout in ("torch", "safetensors_sharded"):
        specification = Specification("rehearsal", "float32", layout)
        make(specification, tmp_path / layout, lambda _: None)
        for file in (tmp_path / layout).iterdir():
            if not (tmp_path / file.name).exists():
                file.rename(tmp_path / file.name)
    names = {name: strategy.function for name, strategy in STRATEGIES.items()}
    given = {"torch": torch, "build": specification.build, "device": torch.device("cpu")}
    blocks = snippets("bench/strategies/README.md")
    assert len(blocks) == 3
    for block in blocks:
        for line in block.splitlines():
            exec(line, found := names | given)  # noqa: S102 - as it stands in the document
            assert isinstance(found["model"], nn.Module), line


def test_a_checkpoint_is_examined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    [block] = snippets("model/README.md")
    torch.save(nn.Linear(1000, 1000).state_dict(), "linear.pt")
    exec(block, {})  # noqa: S102 - as it stands in the document
    torch.save(nn.Linear(1000, 1001).state_dict(), "linear.pt")
    with pytest.raises(UntrustedCheckpoint, match=r"linear\.pt"):
        exec(block, {})  # noqa: S102 - as it stands in the document
