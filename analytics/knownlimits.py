"""Limits that a chart is given, instead of learning them: what a baseline somewhere else has shown."""

import math

import msgspec

KINDS = ("individuals", "ewma", "cusum")  # a centre and a sigma say all of their estimate


class KnownLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is known of one signal; its limits are designed from it, as from a baseline.

    Attributes:
        signal: `machine/signal`.
        center: mean of the charted values.
        sigma: standard deviation of one charted value.
        n: values that both come from; 0 if they are known for sure.
        recipe: with `limits_by`: what its signals say together.

    Raises:
        ValueError: if they cannot be.
    """

    signal: str
    center: float
    sigma: float
    n: int = 0
    recipe: str = ""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.center) and math.isfinite(self.sigma) and self.sigma > 0):
            msg = f"{self.signal}: center must be a number, and sigma one above 0"
            raise ValueError(msg)
        if self.n < 0 or self.n == 1:
            msg = f"{self.signal}: n is 0 or at least 2"
            raise ValueError(msg)
        if self.signal.count("/") != 1:
            msg = f"{self.signal!r} must be machine/signal"
            raise ValueError(msg)


def of_toml(text: bytes) -> tuple[KnownLimits, ...]:
    """The tables `[[limits]]` of a file.

    Raises:
        ValueError: if it is no TOML, or a table is wrong; the message says which.
    """

    class File(msgspec.Struct, forbid_unknown_fields=True):
        limits: tuple[KnownLimits, ...]

    try:
        found = msgspec.toml.decode(text, type=File).limits
    except (msgspec.MsgspecError, UnicodeDecodeError) as e:
        raise ValueError(str(e)) from None
    told = [(k.signal, k.recipe) for k in found]
    for each in told:
        if told.count(each) > 1:
            msg = f"{' '.join(filter(None, each))} is there twice"
            raise ValueError(msg)
    return found
