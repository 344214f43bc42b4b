"""A real engine in a process of its own, told what to do over its pipe."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autopeft.configuration import known_costs
from autopeft.modules import MODULES
from autopeft.study import Study, Trial
from tests.orchestrate.test_rebuild import begun
from workers.messages import (
    Abort,
    Aborted,
    Ended,
    EngineSettings,
    Open,
    Opened,
    Price,
    Priced,
    Reached,
    Refused,
    Run,
    Started,
    Verdict,
)
from workers.process import EngineProcess


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    found, _ = begun(tmp_path_factory.mktemp("study"))
    return found


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    made = EngineProcess(EngineSettings(cache_dir=tmp_path_factory.mktemp("cache"), device="cpu", threads=1))
    yield made
    made.kill()


def bare(study: Study) -> Study:
    return replace(study, trials=())


def answer(engine: EngineProcess) -> Any:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        message = engine.receive(is_loading=True)
        if message is not None:
            return message
    raise AssertionError("no answer")


def opened(engine: EngineProcess, study: Study) -> Opened:
    engine.send(Open(study=bare(study)))
    message = answer(engine)
    assert isinstance(message, Opened), message
    return message


def trained(engine: EngineProcess, study: Study, trials: tuple[Trial, ...], run: int) -> tuple[list[Any], Any]:
    """Run trials to their end, and let every job go on at its points."""
    engine.send(Run(run=run, study=study.spec.name, trials=trials))
    said: list[Any] = []
    while not isinstance(message := answer(engine), Ended | Aborted):
        said.append(message)
        if isinstance(message, Reached):
            engine.send(Verdict(stop=False))
    return said, message


def test_it_gives_the_numbers_that_the_search_itself_gives(engine: EngineProcess, study: Study) -> None:
    """Oracle: the local executor's trial of the same study."""
    assert engine.devices["device"] == "cpu"
    found = opened(engine, study)
    assert (found.study, found.cohort, found.rungs, found.resident) == ("mine", 1, (), ("mine",))
    said, ended = trained(engine, study, study.trials, run=1)
    assert isinstance(said[0], Started)
    assert said[0].placement_parameters == (tuple(study.trials[0].notes["placement_parameters"]),)  # type: ignore[arg-type]
    points = [item for item in said if isinstance(item, Reached)]
    known = [(point.step, point.metrics) for point in study.trials[0].measurements[0].curve]
    assert [(item.curve[0].step, item.curve[0].metrics) for item in points] == known
    (ending,) = ended.endings
    assert ending.failure is None
    assert ending.measurements[0].metrics == study.trials[0].measurements[0].metrics
    assert not ended.is_broken


def test_a_job_ends_where_it_is_told_to(engine: EngineProcess, study: Study) -> None:
    opened(engine, study)
    longer = replace(study.trials[0].draft, fidelity=replace(study.spec.fidelity, epochs=3))
    engine.send(Run(run=2, study="mine", trials=(replace(study.trials[0], draft=longer),)))
    assert isinstance(answer(engine), Started)
    assert isinstance(answer(engine), Reached)
    engine.send(Verdict(stop=True))
    ended = answer(engine)
    assert ended.endings[0].is_stopped_early
    assert ended.endings[0].measurements[0].rung is not None


def test_prices_are_told_while_a_job_waits_for_its_verdict(engine: EngineProcess, study: Study) -> None:
    opened(engine, study)
    configuration = study.trials[0].configuration
    engine.send(Run(run=3, study="mine", trials=study.trials))
    while not isinstance(answer(engine), Reached):
        pass
    engine.send(Price(study="mine", configurations=(configuration,)))
    priced = answer(engine)
    assert isinstance(priced, Priced)
    assert priced.costs[0]["trainable_parameters"] == study.trials[0].draft.trainable_parameters
    engine.send(Verdict(stop=False))
    assert isinstance(answer(engine), Ended)
    assert set(priced.costs[0]) == set(known_costs(configuration, _shapes(), MODULES))


def _shapes() -> Any:
    from tests.configuration.examples import bert_shapes

    return bert_shapes()


def test_a_run_that_is_aborted_ends_at_once_and_the_next_one_is_not_touched(
    engine: EngineProcess, study: Study
) -> None:
    opened(engine, study)
    endless = replace(study.trials[0].draft, fidelity=replace(study.spec.fidelity, epochs=100_000))
    engine.send(Run(run=4, study="mine", trials=(replace(study.trials[0], draft=endless),)))
    assert isinstance(answer(engine), Started)
    reached = answer(engine)
    assert isinstance(reached, Reached)
    engine.send(Abort(run=3))  # of a run that is over: nothing happens
    engine.send(Verdict(stop=False))
    assert isinstance(answer(engine), Reached)
    engine.send(Abort(run=4))
    message = answer(engine)
    while isinstance(message, Reached):
        message = answer(engine)
    assert message == Aborted(run=4)
    _, ended = trained(engine, study, study.trials, run=5)
    assert ended.endings[0].measurements[0].metrics == study.trials[0].measurements[0].metrics


def test_what_cannot_be_served_is_refused_with_the_reason(engine: EngineProcess, study: Study) -> None:
    gone = replace(bare(study).spec, name="gone", backbone={**study.spec.backbone, "source": "/nowhere/at/all"})
    engine.send(Open(study=replace(bare(study), spec=gone)))
    message = answer(engine)
    assert isinstance(message, Refused)
    assert message.study == "gone"
    assert "/nowhere/at/all" in message.reason
    assert opened(engine, study).resident == ("mine",), "what was ready stays ready"


def test_a_trial_that_raises_fails_and_the_engine_lives_on(engine: EngineProcess, study: Study) -> None:
    opened(engine, study)
    huge = replace(study.trials[0].draft, fidelity=replace(study.spec.fidelity, train_examples=10**6))
    _, ended = trained(engine, study, (replace(study.trials[0], draft=huge),), run=6)
    assert ended.endings[0].failure is not None
    assert "1000000 training examples" in ended.endings[0].failure.message
    assert engine.is_alive


def test_only_a_few_studies_stay_resident(study: Study, tmp_path: Path) -> None:
    made = EngineProcess(EngineSettings(cache_dir=tmp_path, device="cpu", threads=1, resident=1))
    try:
        assert opened(made, study).resident == ("mine",)
        other = replace(study, spec=replace(study.spec, name="other"))
        assert opened(made, other).resident == ("other",)
    finally:
        made.kill()
