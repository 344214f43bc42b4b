import re
from collections.abc import Callable
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from autopeft.configuration import Configuration, ModuleSpec, Site
from autopeft.export import front_description, front_figure, heatmap_description, heatmap_figure
from autopeft.objectives import COSTS
from autopeft.study import Study
from tests.export.studies import BASELINES, STUDIES, complete, draft, full_study, hostile_study, single_study
from tests.study.builders import ACCURACY, make_spec

SVG = "{http://www.w3.org/2000/svg}"


def texts(svg: str) -> list[str]:
    return ["".join(item.itertext()) for item in ElementTree.fromstring(svg).iter(f"{SVG}text")]


@pytest.mark.parametrize("build", STUDIES.values(), ids=STUDIES)
def test_figures_of_any_study_are_self_contained_svg_elements(build: Callable[[], Study]) -> None:
    for svg in (front_figure(build()), heatmap_figure(build())):
        root = ElementTree.fromstring(svg)
        assert root.tag == f"{SVG}svg"
        assert root.attrib["role"] == "img"
        titles = {item.attrib["id"]: item.text for item in root if item.tag in (f"{SVG}title", f"{SVG}desc")}
        assert set(root.attrib["aria-labelledby"].split()) == set(titles)
        assert all(titles.values())
        addresses = set(re.findall(r"https?://[^\s\"'<>]+", svg))
        assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}  # names, never fetched


def test_every_reference_inside_a_figure_has_its_target() -> None:
    svg = front_figure(full_study())
    ids = set(re.findall(r'\bid="([^"]+)"', svg))
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', svg))
    assert used
    assert used <= ids
    assert all(name.startswith("front-") for name in ids)


def test_equal_studies_give_equal_pictures() -> None:
    assert front_figure(full_study()) == front_figure(full_study())
    assert heatmap_figure(full_study()) == heatmap_figure(full_study())


def test_front_figure_names_axes_budget_and_each_method_once() -> None:
    shown = texts(front_figure(full_study()))
    assert "accuracy on the search split" in shown
    assert "budget 5k" in shown
    assert "0" in shown  # the head alone has no parameters: left of the logarithmic axis
    for label, _, _ in BASELINES:
        assert shown.count(label.split(", lr ")[0]) == 1, label
    for entry in ("baselines", "front of the search", "recommended"):
        assert entry in shown


def test_front_figure_without_measured_trials_says_so() -> None:
    assert "no trial has been measured yet" in texts(front_figure(STUDIES["failures"]()))
    assert "no configuration is recommended yet" in texts(heatmap_figure(STUDIES["failures"]()))


def test_heat_map_has_the_sizes_of_the_recommended_configuration() -> None:
    study = single_study()
    shown = texts(heatmap_figure(study))
    assert [text for text in shown if text.startswith(("lora", "ia3", "serial"))] == [
        "ia3 k",
        "lora q",
        "lora v",
        "serial_adapter ffn",
    ]
    # lora 4 + layer on q and on v of six layers, one adapter of 16, one (IA)3
    for size in range(4, 10):
        assert shown.count(str(size)) >= 2, size
    assert shown.count("16") == 1
    assert shown.count("on") == 1


def test_heat_map_of_a_head_only_winner_says_so() -> None:
    study = Study(spec=make_spec(), trials=(complete(0, draft(Configuration.make([], learning_rate=1e-3), 0), 0.5),))
    assert "only the task head is trained" in texts(heatmap_figure(study))


def test_descriptions_say_what_the_pictures_show() -> None:
    text = front_description(full_study())
    assert "11 measured search trials" in text
    assert "6 measured baselines" in text
    assert "5,000 parameters" in text
    assert "Recommended: trial" in text
    assert "over 6 layers" in heatmap_description(full_study())


def test_labels_with_formulas_markup_and_control_characters_stay_text() -> None:
    for text in ("$\\frac{1}", "<script>alert(1)</script>", "a\x00\x1b[31m b", "漢字"):
        svg = front_figure(hostile_study(text))
        ElementTree.fromstring(svg)
        assert "<script>" not in svg


@pytest.mark.parametrize(
    "objectives",
    [(ACCURACY,), (ACCURACY, COSTS["wall_time_s"]), (ACCURACY, COSTS["trainable_parameters"], COSTS["wall_time_s"])],
)
def test_other_objectives_are_drawn_without_the_line_of_the_plain_case(objectives: tuple[object, ...]) -> None:
    study = full_study()
    changed = replace(study, spec=make_spec(objectives=objectives))
    assert "front of the search" in texts(front_figure(changed))


def test_a_tiny_budget_and_a_huge_model_fit_on_one_axis() -> None:
    site = Site(layer=0, part="q")
    trials = [
        complete(i, draft(Configuration.make([(site, ModuleSpec.make("lora", i + 1))], learning_rate=1e-3), cost), 0.5)
        for i, cost in enumerate((1, 10**10))
    ]
    svg = front_figure(Study(spec=make_spec(budget=1), trials=tuple(trials)))
    assert "10G" in texts(svg)
