"""Requests of a user: how a checkpoint is to become a model, by other names, in part, in another dtype."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ConversionRequest:
    """How a checkpoint is to become a model's.

    `renames` are pairs of a regular expression and its replacement, applied to every name in the checkpoint, in order.
    `missing` and `surplus` are globs of names: of the model's, which the checkpoint may lack, and of the checkpoint's,
    which the model may lack.
    """

    renames: tuple[tuple[str, str], ...] = ()
    missing: tuple[str, ...] = ()
    surplus: tuple[str, ...] = ()
    # The dtype that floating-point weights end in, of `DTYPES`; None: the model's, which the checkpoint has too.
    cast: str | None = None

    @property
    def of_names(self) -> list[str]:
        """The options that say something of names in a checkpoint."""
        said = {"--rename": self.renames, "--allow-missing": self.missing, "--allow-surplus": self.surplus}
        return [option for option, given in said.items() if given]


AS_IT_IS = ConversionRequest()
