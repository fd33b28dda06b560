"""The conversion of a checkpoint that the user asks for: other names, a part of it, another dtype."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ConversionRequest:
    """A requested conversion of a checkpoint to a model's.

    `renames` are pairs of a regular expression and its replacement, applied to every name in the checkpoint, in order.
    `missing` are globs of the model's names that the checkpoint may lack, `surplus` globs of the checkpoint's names
    that the model may lack.
    """

    renames: tuple[tuple[str, str], ...] = ()
    missing: tuple[str, ...] = ()
    surplus: tuple[str, ...] = ()
    # The dtype that floating-point weights end in, of `DTYPES`; None: that of model and checkpoint.
    cast: str | None = None

    @property
    def name_options(self) -> list[str]:
        """The given options that concern names in a checkpoint."""
        values = {"--rename": self.renames, "--allow-missing": self.missing, "--allow-surplus": self.surplus}
        return [option for option, value in values.items() if value]


AS_IT_IS = ConversionRequest()
