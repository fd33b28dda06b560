"""A row of the table of options. Pytest's options and the Markdown table are made from these rows."""

import dataclasses
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from types import SimpleNamespace
from typing import Any


@dataclass(frozen=True)
class Option:
    """An option by its `name`, as it is typed, below a `heading` of --help. A `metavar` of None: a flag.

    `default` is a text like that of a user. `parse` makes a value of a text, or raises `ValueError` with one line. Of
    an option that may be `repeated` the value is a tuple.
    """

    name: str
    default: str | bool | None
    metavar: str | None
    meaning: str
    parse: Callable[[str], Any]
    repeated: bool
    heading: str = ""

    @classmethod
    def of(cls, field: "dataclasses.Field[Any]") -> "Option":
        """Return the option of a field that `option` made."""
        return cls(name=f"--{field.name.replace('_', '-')}", **field.metadata)

    @property
    def attribute(self) -> str:
        """The name of the option in `Options`, and in pytest's namespace."""
        return self.name.removeprefix("--").replace("-", "_")

    @property
    def typed(self) -> str:
        """The option as it is typed, with a value."""
        return f"{self.name} {self.metavar}" if self.metavar else self.name

    @property
    def help_text(self) -> str:
        """The meaning of the option, with its default."""
        if self.metavar is None:
            return f"{self.meaning} (default: off)"
        return self.meaning if self.default is None else f"{self.meaning} (default: {self.default})"

    def value(self, given: Any) -> Any:
        """Parse what pytest has of the option. Raises `ValueError` with one line that names the option."""
        if given is None or isinstance(given, bool):
            return () if self.repeated else given
        try:
            return tuple(map(self.parse, given)) if self.repeated else self.parse(given)
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from None


def option(
    default: str | bool | None,
    metavar: str | None,
    meaning: str,
    parse: Callable[[str], Any] = str,
    *,
    repeated: bool = False,
) -> Any:
    """Return the field of an option: a row of the table."""
    row = {"default": default, "metavar": metavar, "meaning": meaning, "parse": parse, "repeated": repeated}
    return dataclasses.field(metadata=row)


def with_headings(options: Iterable[Option], headings: Mapping[str, str]) -> Iterator[Option]:
    """Yield options with the heading that begins at each, or before it; `headings` are by the first option below."""
    heading = ""
    for one in options:
        heading = headings.get(one.attribute, heading)
        yield dataclasses.replace(one, heading=heading)


def add_options(parser: Any, options: Iterable[Option]) -> None:
    """Add options to a parser of pytest's, in groups by their headings, before the groups of other plugins."""
    after = "general"
    for one in options:
        title = f"weight loading: {one.heading}"
        group, after = parser.getgroup(title, after=after), title
        form: dict[str, Any] = {"default": one.default, "help": one.help_text.replace("%", "%%")}
        if one.metavar is None:
            form["action"] = "store_true"
        else:
            form |= {"metavar": one.metavar, "action": "append" if one.repeated else "store"}
        group.addoption(one.name, **form)


# The end of the help of a command.
EPILOG = """\
options of pytest and pytest-benchmark, of which these are used most:
  -k EXPRESSION         measure what matches, such as -k "streamed and peak_memory"
  -v, -q, -x            name each test, print less, stop at the first failure
  --benchmark-compare[=RUN]
                        compare with earlier runs, or with one run by its number
  --benchmark-storage FOLDER
                        folder of the records (default: weight-loading/ here)
  --benchmark-json FILE
                        file to write the record into as well

exit status: 0: all is right; 1: something failed, is worse or does not fit;
2: interrupted; 4: the options are wrong
"""


def command_help(program: str, options: Iterable[Option]) -> str:
    """Return the help of a command that takes these options, and those of pytest."""
    parser = ArgumentParser(
        program,
        f"{program} --model FOLDER [OPTION ...]",
        formatter_class=RawDescriptionHelpFormatter,
        epilog=EPILOG,
        add_help=False,
    )

    groups: dict[str, SimpleNamespace] = {}

    def getgroup(title: str, **_: str) -> SimpleNamespace:
        if title not in groups:
            groups[title] = SimpleNamespace(addoption=parser.add_argument_group(title).add_argument)
        return groups[title]

    add_options(SimpleNamespace(getgroup=getgroup), options)
    return parser.format_help()


def typed(given: Any, options: Iterable[Option]) -> dict[str, tuple[str, ...]]:
    """Return the texts of the options that were given, by their names, from pytest's namespace; a flag has none."""
    found = {one: getattr(given, one.attribute) for one in options}
    there = {one: value for one, value in found.items() if value not in (None, False, [], one.default)}
    return {
        one.name: () if one.metavar is None else tuple(value) if one.repeated else (value,)
        for one, value in there.items()
    }


def markdown_table(options: Iterable[Option]) -> str:
    """Return the table of options of `bench/README.md`, with a row for each heading."""
    rows = ["| option | meaning |", "|---|---|"]
    for heading, below in groupby(options, key=lambda one: one.heading):
        rows += [f"| **{heading}** | |", *(f"| `{one.typed}` | {one.help_text} |" for one in below)]
    return "\n".join(rows)
