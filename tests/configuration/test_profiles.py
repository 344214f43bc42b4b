import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopeft.configuration import PROFILES, profile_sizes
from tests.configuration.examples import patient


@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        # Weights 0.25 + 0.75 x at x = 0, 1/4, ..., 1 have mean 0.625: 10 * w / 0.625 = 16 w.
        ("flat", (10, 10, 10, 10, 10)),
        ("increasing", (4, 7, 10, 13, 16)),
        ("decreasing", (16, 13, 10, 7, 4)),
        # Weights 0.25, 0.625, 1, 0.625, 0.25 have mean 0.55.
        ("triangle", (5, 11, 18, 11, 5)),
        # Weights 1, 0.625, 0.25, 0.625, 1 have mean 0.7.
        ("hourglass", (14, 9, 4, 9, 14)),
    ],
)
def test_by_hand(profile: str, expected: tuple[int, ...]) -> None:
    assert profile_sizes(profile, 10, 5) == expected


@pytest.mark.parametrize("profile", PROFILES)
def test_one_layer_has_no_profile(profile: str) -> None:
    assert profile_sizes(profile, 7, 1) == (7,)


@patient
@given(st.sampled_from(sorted(PROFILES)), st.integers(1, 1000), st.integers(1, 40))
def test_mean_is_kept_and_nothing_vanishes(profile: str, size: int, n_layers: int) -> None:
    sizes = profile_sizes(profile, size, n_layers)
    assert len(sizes) == n_layers
    assert min(sizes) >= 1
    # Rounding moves each size by at most a half, the floor of 1 by less than 1.
    assert abs(sum(sizes) / n_layers - size) <= 1


@patient
@given(st.integers(1, 1000), st.integers(1, 40))
def test_symmetries(size: int, n_layers: int) -> None:
    assert profile_sizes("increasing", size, n_layers) == profile_sizes("decreasing", size, n_layers)[::-1]
    for profile in ("triangle", "hourglass"):
        assert profile_sizes(profile, size, n_layers) == profile_sizes(profile, size, n_layers)[::-1]
    increasing = profile_sizes("increasing", size, n_layers)
    assert list(increasing) == sorted(increasing)
