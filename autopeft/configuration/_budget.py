"""Reading a parameter budget."""

from __future__ import annotations

import re
from decimal import ROUND_FLOOR, Decimal
from typing import Final

from autopeft.exceptions import BudgetError

_UNITS: Final = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}
_PATTERN: Final = re.compile(
    r"([+-]?)([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:e([+-]?[0-9]{1,9}))?\s*(%|[kmb]?)", re.IGNORECASE
)
_HOW: Final = "write a share of the backbone (1%, 0.5%) or a number of parameters (250000, 300k, 1.5M)"
#: No backbone has more parameters than this; larger exponents would only cost time and memory.
_MAX_EXPONENT: Final = 15


def parse_budget(text: str | int, backbone_parameters: int) -> int:
    """Read a cap on trainable PEFT parameters, task head excluded.

    Args:
        text: ``"1%"`` of the backbone, rounded down, or an absolute ``"300k"``, ``"1.5M"``, ``"250000"``.
        backbone_parameters: Parameters of the backbone, >= 1.

    Returns:
        The cap in parameters, at least 1. An absolute budget may exceed the backbone, a share may not.

    Raises:
        BudgetError: If the text is no budget, not positive, above 100 %, or not a whole number of parameters.
    """
    shown = repr(str(text))
    stripped = str(text).strip()
    if not stripped:
        raise BudgetError(f"the parameter budget is empty; {_HOW}.")
    match = _PATTERN.fullmatch(stripped)
    if match is None:
        raise BudgetError(f"{shown} is not a parameter budget; {_HOW}.")
    sign, digits, exponent, unit = match.groups()
    if exponent is not None and abs(int(exponent)) > _MAX_EXPONENT:
        raise BudgetError(f"the parameter budget {shown} is out of range; {_HOW}.")
    number = Decimal(digits).scaleb(int(exponent or 0))
    if sign == "-" or number == 0:
        raise BudgetError(f"a parameter budget must be positive, but got {shown}; {_HOW}.")
    if unit == "%":
        return _from_share(number, shown, backbone_parameters)
    parameters = number * _UNITS[unit.lower()]
    if parameters != parameters.to_integral_value():
        raise BudgetError(
            f"the parameter budget {shown} is not a whole number of parameters; a share is written with a percent "
            f"sign, for example {_percent(number)}."
            if not unit and number < 1
            else f"the parameter budget {shown} is not a whole number of parameters; {_HOW}."
        )
    if parameters.adjusted() > _MAX_EXPONENT:
        raise BudgetError(f"the parameter budget {shown} is out of range; {_HOW}.")
    return int(parameters)


def _from_share(percent: Decimal, shown: str, backbone_parameters: int) -> int:
    if percent > 100:
        raise BudgetError(f"a parameter budget must be at most 100% of the backbone, but got {shown}.")
    parameters = int((percent * backbone_parameters / 100).to_integral_value(rounding=ROUND_FLOOR))
    if parameters < 1:
        raise BudgetError(
            f"the parameter budget {shown} is less than one of the backbone's {backbone_parameters:,} parameters."
        )
    return parameters


def _percent(share: Decimal) -> str:
    return f"{float(share * 100):g}%"
