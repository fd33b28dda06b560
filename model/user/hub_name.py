"""Names of models on the Hugging Face hub for `--model`: `hub:ORG/NAME[@REVISION]`."""

import re
from dataclasses import dataclass

from model.examine.trust import one_line

PREFIX = "hub:"
FORM = "hub:ORG/NAME or hub:ORG/NAME@REVISION, such as hub:Qwen/Qwen3-8B"
# Those that the hub takes: letters, digits, and `-`, `_` or `.` between them.
_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9_]|[-.](?![-.]))*(?<![-.])"
REPOSITORY = re.compile(rf"(?P<owner>{_PART})/(?P<name>{_PART})", re.ASCII)
_NAME = re.compile(rf"{REPOSITORY.pattern}(?:@(?P<revision>[\w./+-]{{1,200}}))?", re.ASCII)
_MOST_CHARACTERS = 96


@dataclass(frozen=True)
class HubName:
    """A repository of a model, and a branch, a tag or a commit in it; "": its main branch."""

    owner: str
    name: str
    revision: str = ""

    @classmethod
    def of(cls, text: str) -> "HubName | None":
        """Parse an argument of `--model`; None if it names something else.

        Raises `ValueError`, in a line, for a malformed name.
        """
        if not text.startswith(PREFIX):
            return None
        found = _NAME.fullmatch(text.removeprefix(PREFIX))
        if not found or len(f"{found['owner']}/{found['name']}") > _MOST_CHARACTERS or found["name"].endswith(".git"):
            raise ValueError(f"{one_line(repr(text))} is not the name of a model on the hub; write {FORM}")
        return cls(found["owner"], found["name"], found["revision"] or "")

    @property
    def repository(self) -> str:
        return f"{self.owner}/{self.name}"

    def __str__(self) -> str:
        return f"{PREFIX}{self.repository}{f'@{self.revision}' if self.revision else ''}"

    def require_plan(self, *, planned: bool) -> None:
        """Raise `ValueError`, in a line, for a run that wants the weights."""
        if not planned:
            at = f" --revision {self.revision}" if self.revision else ""
            raise ValueError(
                f"{self} is planned only, since no weights are downloaded here; add --plan, or run hf download "
                f"{self.repository}{at} --local-dir {self.name}, and then use --model {self.name}"
            )
