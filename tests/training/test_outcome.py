import math

from autopeft.configuration import Configuration, ModuleSpec, Site
from autopeft.study import Rung
from tests.training.toys import job, lora, toy_runner


def test_the_score_is_the_last_evaluation_and_never_the_best() -> None:
    (outcome,) = toy_runner().run([job(lora([0, 1, 2], rate=5e-2), epochs=6)])
    last = {name: value for name, value in outcome.curve[-1].metrics.items() if name != "train_loss"}
    assert dict(outcome.measurements[0].metrics) == last
    assert len(outcome.curve) == 6


def test_predictions_are_kept_for_the_report_split_alone_and_give_its_score() -> None:
    """Oracle: accuracy counted from the predictions."""
    runner = toy_runner()
    (outcome,) = runner.run([job(lora([2]), report=True)])
    search, report = outcome.measurements
    assert search.predictions is None
    assert report.predictions is not None
    targets = runner.task.report.targets
    assert report.metrics["accuracy"] == (targets == list(report.predictions)).mean()
    assert {"wall_time_s", "examples_per_s", "tokens_per_s"} <= report.costs.keys()


def test_a_run_stopped_early_is_measured_at_its_rung_and_has_no_report() -> None:
    asked = job(lora([2]), epochs=5, report=True)
    (outcome,) = toy_runner().run([asked], on_point=lambda _, point: point.epoch >= 2)
    assert outcome.is_stopped_early
    (measurement,) = outcome.measurements
    assert (measurement.split, measurement.fidelity) == ("search", asked.fidelity)
    assert measurement.rung == Rung(step=10, n_steps=25)


def test_what_modules_counted_is_in_the_curve_and_in_no_score() -> None:
    """Every router's load per expert and entropy at every point; the measurement has the task's metrics alone."""
    sites = [Site(layer=layer, part=part) for layer in (0, 2) for part in ("q", "v")]
    mixture = ModuleSpec.make("moe_lora", 2, experts=3)
    chosen = Configuration.make([(site, mixture) for site in sites], learning_rate=5e-3)
    (outcome,) = toy_runner().run([job(chosen, epochs=2)])
    names = {f"load_{expert}" for expert in range(3)} | {"entropy"}
    wanted = {f"layers.{site.layer}.{site.part}.moe_lora.{name}" for site in sites for name in names}
    for point in outcome.curve:
        assert point.statistics.keys() == wanted
        assert point.scores.keys() == {"accuracy", "train_loss"}
        for site in sites:
            loads = [point.metrics[f"layers.{site.layer}.{site.part}.moe_lora.load_{expert}"] for expert in range(3)]
            assert abs(sum(loads) - 1) < 1e-6
            assert 0 <= point.metrics[f"layers.{site.layer}.{site.part}.moe_lora.entropy"] <= math.log(3) + 1e-6
    assert outcome.measurements[0].metrics.keys() == {"accuracy"}
