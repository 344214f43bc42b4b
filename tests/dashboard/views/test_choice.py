from __future__ import annotations

import pytest
from streamlit.testing.v1 import AppTest

from dashboard.views import _choice
from tests.dashboard.test_pages import open_page, said

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def listed(app: AppTest, label: str) -> list[str]:
    return next(item for item in app.selectbox if item.label == label).options


def test_of_few_trials_all_are_listed_but_a_trial_is_not_compared_with_itself(
    full_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = open_page(monkeypatch, full_url, "configuration", study="study", trial="3")
    assert len(listed(app, "Trial")) == 15
    assert listed(app, "Trial")[3] == "3: on the front, accuracy 0.7000"
    assert len(listed(app, "Compare with")) == 14
    assert not any(option.startswith("3:") for option in listed(app, "Compare with"))


def test_of_many_trials_those_worth_it_are_listed_and_any_can_be_opened(
    full_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_choice, "_MAX_LISTED", 4)
    app = open_page(monkeypatch, full_url, "configuration", study="study", trial="9")
    # Baselines, the front, the best two (5, 7), the newest (14), and the one that is open.
    assert [int(option.split(":")[0]) for option in listed(app, "Trial")] == [0, 1, 2, 3, 5, 7, 9, 14]


def test_two_trials_are_compared_by_a_link(full_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_page(monkeypatch, full_url, "configuration", study="study", trial="5", **{"with": "3"})
    assert [item.value for item in app.subheader][:2] == ["Trial 5", "Trial 3"]
    next(item for item in app.selectbox if item.label == "Compare with").set_value(2).run()
    assert not app.exception
    assert app.query_params["with"] == "2"
    assert [item.value for item in app.subheader][:2] == ["Trial 5", "Trial 2"]


@pytest.mark.parametrize("partner", ["999", "-1", "<b>", "5"])
def test_a_tampered_partner_is_told_or_left_out(partner: str, full_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_page(monkeypatch, full_url, "configuration", study="study", trial="5", **{"with": partner})
    assert "Trial 5" not in [item.value for item in app.subheader], "nothing is compared"
    assert ("a trial that this study does not have" in said(app)) == (partner != "5")
