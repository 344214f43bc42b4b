import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopeft.configuration import parse_budget
from autopeft.exceptions import BudgetError
from tests.configuration.examples import patient

MINILM = 22_713_216


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1%", 227_132),  # floor(227132.16)
        ("0.5 %", 113_566),
        (" 100% ", MINILM),
        ("300k", 300_000),
        ("300K", 300_000),
        ("1.5M", 1_500_000),
        ("1.5 m", 1_500_000),
        ("0.001b", 1_000_000),
        ("250000", 250_000),
        (250_000, 250_000),
        ("2.5e5", 250_000),
        ("1e-1%", 22_713),
        ("1.", 1),
        (".5%", 113_566),
    ],
)
def test_accepted(text: str | int, expected: int) -> None:
    assert parse_budget(text, MINILM) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; write a share of the backbone"),
        ("   ", "is empty"),
        ("0", "must be positive, but got '0'"),
        ("0%", "must be positive, but got '0%'"),
        ("-1%", "must be positive, but got '-1%'"),
        ("-5", "must be positive"),
        ("1%%", "'1%%' is not a parameter budget; write"),
        ("abc", "'abc' is not a parameter budget"),
        ("%", "is not a parameter budget"),
        ("1,000", "is not a parameter budget"),
        ("1 000", "is not a parameter budget"),
        ("nan", "is not a parameter budget"),
        ("inf%", "is not a parameter budget"),
        ("٣%", "is not a parameter budget"),
        ("101%", "must be at most 100% of the backbone, but got '101%'"),
        ("1e400", "'1e400' is out of range"),
        ("1e400%", "'1e400%' is out of range"),
        ("1e99999999999", "is not a parameter budget"),
        ("9" * 400, "is out of range"),
        ("0.0000001%", "less than one of the backbone's 22,713,216 parameters"),
        ("0.01", "a share is written with a percent sign, for example 1%"),
        ("1.5", "is not a whole number of parameters"),
        ("0.0001k", "is not a whole number of parameters"),
    ],
)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(BudgetError) as caught:
        parse_budget(text, MINILM)
    assert message in str(caught.value)
    assert str(text).strip() in str(caught.value)


@patient
@given(st.integers(1, 10**15), st.integers(1, 10**12))
def test_absolute_budgets_are_read_exactly(parameters: int, backbone: int) -> None:
    assert parse_budget(str(parameters), backbone) == parameters
    assert parse_budget(parameters, backbone) == parameters


@patient
@given(st.integers(1, 10_000), st.integers(10_000, 10**12))
def test_shares_are_rounded_down_exactly(hundredths: int, backbone: int) -> None:
    """Oracle: integer arithmetic on hundredths of a percent."""
    assert parse_budget(f"{hundredths / 100:.2f}%", backbone) == hundredths * backbone // 10_000


@patient
@given(st.text(max_size=12))
def test_any_text_gives_a_budget_or_a_budget_error(text: str) -> None:
    with contextlib.suppress(BudgetError):
        assert parse_budget(text, MINILM) >= 1
