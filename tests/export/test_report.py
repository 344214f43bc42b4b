import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest

from autopeft.exceptions import UnknownNameError
from autopeft.export import render_report
from autopeft.export._report import Table, build_report
from autopeft.study import Study, TrialKind
from tests.export.studies import STUDIES, full_study, rewarded_study

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
SECTIONS = (
    "Result",
    "Front",
    "Recommended configuration",
    "Baselines",
    "All trials",
    "Failures",
    "Reproducibility",
)


def tables(study: Study) -> dict[str, Table]:
    report = build_report(study, generated_at=NOW)
    return {block.caption: block for item in report.sections for block in item.blocks if isinstance(block, Table)}


@pytest.mark.parametrize("format", ["html", "md"])
@pytest.mark.parametrize("build", STUDIES.values(), ids=STUDIES)
def test_any_study_has_a_report_with_every_section(build: Callable[[], Study], format: str) -> None:
    text = render_report(build(), format, generated_at=NOW)
    for title in SECTIONS:
        assert (f">{title}</h2>" if format == "html" else f"\n## {title}\n") in text


def test_unknown_format_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown report format 'pdf'.*html, md"):
        render_report(full_study(), "pdf")


def test_trial_table_has_every_trial_with_its_numbers() -> None:
    study = full_study()
    table = tables(study)["All trials, by number"]
    assert len(table.rows) == len(study.trials)
    by_number = {row[0]: dict(zip(table.headers, row, strict=True)) for row in table.rows}
    assert by_number["3"] == {
        "trial": "3",
        "kind": "baseline",
        "state": "COMPLETE",
        "configuration": "LoRA r=8 on q,v, lr 0.005",
        "accuracy (search)": "0.6100",
        "accuracy (report)": "0.6080",
        "parameters": "3,000",
        "share": "3.00 %",
        "wall time": "12.5 s",
        "peak memory": "3.0 GiB",
        "seed": "0",
    }


def test_what_a_failed_trial_did_not_measure_is_an_empty_cell() -> None:
    table = tables(STUDIES["failures"]())["All trials, by number"]
    row = dict(zip(table.headers, table.rows[0], strict=True))
    assert row["state"] == "FAILED"
    assert row["accuracy (search)"] == row["wall time"] == row["peak memory"] == ""
    assert row["parameters"] == "1,000"


def test_difference_and_confirmation_stand_with_their_intervals() -> None:
    found = tables(full_study())
    assert found["Recommended minus best baseline within the budget, report split"].rows == (
        ("accuracy", "+0.0500", "[+0.0200, +0.0800]", "2", "500"),
    )
    confirmed = found["Confirmed over seeds: mean accuracy"].rows
    assert confirmed[1][0] == "3"
    assert confirmed[1][3:] == ("2", "0.6180", "0.6080", "[0.5880, 0.6280]")


def test_further_objectives_and_rewards_stand_in_every_table_with_their_units() -> None:
    found = tables(rewarded_study())
    table = found["All trials, by number"]
    row = dict(zip(table.headers, table.rows[3], strict=True))
    assert (row["accuracy (search)"], row["memorization"], row["latency_s"]) == ("0.6100", "0.3050", "4.25 ms")
    assert table.numeric == frozenset(range(len(table.headers))) - {1, 2, 3}
    secondary = found["Further objectives and rewards of the confirmed trials, mean over seeds"]
    assert secondary.rows[-2:] == (
        ("3", "memorization", "minimize", "0.3300", "[0.3100, 0.3500]", "0.3200", ""),
        ("3", "latency_s", "minimize", "4.25 ms", "[4 ms, 4.5 ms]", "", ""),
    )
    assert not any("Further objectives" in caption for caption in tables(full_study()))


def test_confirmation_whose_interval_is_undefined_has_empty_cells() -> None:
    study = full_study()
    row = {"trial": 3, "seeds": [1], "search_mean": 0.6, "report_mean": None, "report_low": None, "report_high": None}
    changed = replace(study, attributes={"summary": {**study.attributes["summary"], "confirmed": [row]}})
    assert tables(changed)["Confirmed over seeds: mean accuracy"].rows[0][-2:] == ("", "")


def test_front_table_is_sorted_by_cost_and_holds_search_trials_only() -> None:
    study = full_study()
    rows = tables(study)["Front of the search, cheapest first"].rows
    costs = [study.trials[int(row[0])].draft.trainable_parameters for row in rows]
    assert costs == sorted(costs)
    assert {study.trials[int(row[0])].kind for row in rows} == {TrialKind.SEARCH}


def test_reproducibility_names_command_versions_seeds_and_hashes() -> None:
    study = full_study()
    facts = dict(tables(study)["Where the numbers come from"].rows)
    assert facts["measured with: versions.torch"] == "2.13.0"
    assert facts["task: content_hash"] == "t"
    assert facts["seed"] == "0"
    assert facts["report written"].startswith("2026-11-21 12:00:00 UTC by autopeft ")
    assert "autopeft search --task toy --budget 5%" in render_report(study, "md")


def test_an_unfinished_search_says_so() -> None:
    assert "This search is not finished" in render_report(STUDIES["waiting"](), "md")
    assert "This search is not finished" not in render_report(full_study(), "md")


class Page(HTMLParser):
    """Collects tags with attributes, and checks that they close in order."""

    VOID = ("meta", "br", "use", "path", "link")

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def parse(text: str) -> Page:
    page = Page()
    page.feed(text)
    page.close()
    assert page.open == []
    return page


@pytest.mark.parametrize("build", STUDIES.values(), ids=STUDIES)
def test_page_fetches_nothing_and_runs_nothing(build: Callable[[], Study]) -> None:
    text = render_report(build(), generated_at=NOW)
    page = parse(text)
    assert not [tag for tag, _ in page.tags if tag in ("script", "link", "img", "iframe", "object", "embed", "base")]
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("href", "xlink:href", "src", "action"):
                assert (value or "").startswith("#"), (tag, name, value)
    assert not re.search(r"url\((?!#)|@import", text)
    assert "default-src 'none'" in text


def test_page_ids_are_unique_and_links_lead_somewhere() -> None:
    page = parse(render_report(full_study(), generated_at=NOW))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [value for _, attributes in page.tags if (value := attributes.get("href")) is not None]
    assert {str(link)[1:] for link in links} <= set(ids)
