from autopeft.study import Fidelity
from tests.training.toys import job, lora, toy_runner


def test_a_probe_measures_and_leaves_no_trace() -> None:
    runner = toy_runner()
    (before,) = runner.run([job(lora([0, 1]))])
    probe = runner.probe(lora([0, 1]))
    assert probe.train_s_per_example > 0
    assert probe.evaluation_s_per_example > 0
    (after,) = runner.run([job(lora([0, 1]))])
    assert after.measurements[0].metrics == before.measurements[0].metrics


def test_the_estimate_grows_with_the_training() -> None:
    runner = toy_runner()
    runner.probe(lora([0]))  # the first probe pays for what is prepared once
    short = runner.estimate(lora([0]), Fidelity(train_examples=10, epochs=1))
    long = runner.estimate(lora([0]), Fidelity(train_examples=40, epochs=50))
    assert long > 5 * short > 0


def test_all_layers_cost_more_than_the_top_one() -> None:
    runner = toy_runner()
    runner.probe(lora([0]))
    fidelity = Fidelity(train_examples=40, epochs=20)
    every = min(runner.estimate(lora([0, 1, 2]), fidelity) for _ in range(3))
    top = min(runner.estimate(lora([2]), fidelity) for _ in range(3))
    assert every > top
