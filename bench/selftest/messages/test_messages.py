"""The tables of messages are true, and every message is one line that says what happened and what to do."""

import re
from pathlib import Path

import pytest

from bench.selftest.messages.situations import SITUATIONS, message
from bench.selftest.messages.source_texts import patterns
from bench.selftest.messages.table import TABLES, Row, all_rows, rows_of
from bench.selftest.messages.workshop import furnish

ROOT = Path(__file__).parents[3]
ROWS = all_rows()

# Of a line, without a list of choices.
MOST_CHARACTERS = 300
CHOICES = re.compile(r"[Cc]hoose from .*")

# What to do begins with such a word.
DO = (
    *("add", "build", "check", "choose", "convert", "copy", "correct", "define", "did", "download", "give", "install"),
    *("leave", "load", "merge", "name", "plan", "put", "read", "rename", "return", "run", "save", "set", "start"),
    *("unpack", "unset", "use", "wrap", "write"),
)
REMEDY = re.compile(rf"(?:[;:]|, and|, or) (?:{'|'.join(DO)})\b")
# What code of the user's, or a library, says by itself: nothing is known of the remedy.
OF_OTHERS = re.compile(r"mine\.py:failing fails: |broken\.py cannot be imported: |it is no configuration of Llama")

# Modules with messages about command lines.
MODULES = (
    *(f"bench/plugin/{name}.py" for name in ("divisions", "option_combinations", "option_texts", "preconditions")),
    *(f"bench/plugin/{name}.py" for name in ("rank_groups", "settings", "user_options", "versus_plugin")),
    *(f"model/user/{name}.py" for name in ("factory", "from_config", "from_options", "hub_name", "name_globs")),
    *(f"model/user/{name}.py" for name in ("pretrained_folder", "reference", "renaming", "saved_dtypes", "source")),
    *(f"model/user/{name}.py" for name in ("state_keys", "user_code")),
    *("bench/measure/expression.py", "bench/meters/allocator_settings.py", "bench/meters/devices.py"),
    *("bench/sharded/rank_group.py", "bench/strategies/user_strategy.py", "bench/versus/sides.py"),
    *("bench/versus/uv.py", "model/examine/mishaps.py"),
)
# Texts that stand in no table, and why.
ELSEWHERE = {
    "f'it cannot be read: {error.strerror}'": "of files that the user may not read",
    "f'--checkpoint: {one_line(str(path))} cannot be read ({error.strerror}); name another file or folder'": "as long",
    "f'is too large for a configuration: it has {size:,} bytes of at most {MOST_BYTES:,}; name another "
    "file'": "of 64 MiB",
    "f'is too large for a configuration: it takes {needed / 2 ** 20:,.0f} MiB of memory of at most {most >> 20:,}; "
    "name another file'": "of millions of numbers",
    "f'--checkpoint: {path} holds {_listed(found.values())} in tensors that from_pretrained converts, which --cast "
    "cannot; save the state dict of the model itself'": "of a mixture of experts",
    "f'--cast: torch {torch.__version__} cannot convert {dtype_name(dtype)} to {to}; leave out --cast'": "of float4",
    "f'planned from the tensors of its files, because {error.reason}: {unseen}'": "a note",
    "f'transformers {library.__version__} is too old'": "in that note",
    "f'it is quantised by {printable(method)}'": "in that note",
    "'without what its index does not list'": "a note",
    "f'{word} is no option, and no test of this suite; is it the value of --model?'": "in bench/plugin/test_command.py",
    "f'the loader returned an object of type {kind}, not a torch.nn.Module; return the model'": "of a load, later",
}


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("workshop")
    furnish(folder)
    return folder


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.stem)
def test_a_command_line_ends_in_the_message_of_its_row(table: Path, workshop: Path) -> None:
    """`python -m bench.selftest.messages` writes the messages as they are now."""
    for row in rows_of(table.read_text(encoding="utf-8")):
        assert message(row, workshop) == row.message, row


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.situation}: {row.command}")
def test_a_message_says_what_happened_and_what_to_do(row: Row) -> None:
    assert row.situation in SITUATIONS
    assert row.message.isprintable()
    assert len(CHOICES.sub("", row.message)) <= MOST_CHARACTERS
    assert REMEDY.search(row.message) or OF_OTHERS.search(row.message)
    assert not re.match(r"(?:--?[\w-]+: )?(?:what|whether|where|who|that|of)\b", row.message, re.IGNORECASE)


@pytest.mark.parametrize("module", MODULES)
def test_every_message_stands_in_a_table(module: str) -> None:
    messages = "\n".join(row.message for row in ROWS)
    absent = {text for text, pattern in patterns(ROOT / module) if not pattern.search(messages)}
    assert absent <= ELSEWHERE.keys()


def test_a_text_that_is_said_to_stand_elsewhere_is_there() -> None:
    there = {text for module in MODULES for text, _ in patterns(ROOT / module)}
    assert ELSEWHERE.keys() <= there
