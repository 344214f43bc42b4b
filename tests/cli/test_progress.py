from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from autopeft.cli._progress import SearchProgress, plan_document, plan_lines
from autopeft.study import Fidelity, Rung, TrialState
from tests.cli.test_search import make_plan
from tests.export.studies import complete, draft, failed, full_study, mixed_configuration, rewarded_study

FOUND = complete(7, draft(mixed_configuration(first=5), 1234), 0.61)
BROKEN = failed(8, draft(mixed_configuration(first=4), 1234))


PLAN = make_plan(n_done=3, store_url="sqlite:////tmp/x.db")


def run(progress: SearchProgress) -> None:
    with progress:
        progress.plan(PLAN)
        progress.trial_started(FOUND)
        progress.trial_finished(FOUND, full_study().trials[3])
        progress.trial_started(BROKEN)
        progress.trial_failed(BROKEN)
        progress.message("Confirming [not markup] ...")


def test_plan_says_everything_before_the_search() -> None:
    text = "\n".join(plan_lines(PLAN))
    for part in (
        "5%: 5,000 trainable parameters (5.00 %)",
        "24 search trials, 6 baselines, up to 18 confirmations; 3 done",
        "at most about 3 min 00 s, at 4.0 s per trial (measured)",
        "lora: a plain LoRA adapter",
        "autopeft search --task toy",
        "sqlite:////tmp/x.db",
    ):
        assert part in text


def test_plan_names_the_scores_that_are_computed_first() -> None:
    plan = replace(PLAN, score_sources=("activation", "gradient"), score_time_s=12.0)
    assert "Scores     activation, gradient: computed once before the first trial, about 12.0 s" in plan_lines(plan)
    assert not any(line.startswith("Scores") for line in plan_lines(PLAN))
    document = plan_document(plan)
    assert (document["score_sources"], document["score_time_s"]) == (["activation", "gradient"], 12.0)


def test_plan_says_what_else_is_measured_and_how_long_it_takes() -> None:
    plan = replace(PLAN, rewards=(("memorization", "one pass"), ("shine", "")), reward_time_s=0.5)
    lines = plan_lines(plan)
    start = lines.index("Rewards    memorization, shine: about 0.5 s per trial (measured)")
    assert lines[start + 1] == "           memorization: one pass"
    assert not any("shine:" in line for line in lines[start + 1 :])
    broken = replace(plan, reward_time_s=None, reward_problem="reward shine: ValueError: dark")
    assert "Rewards    memorization, shine" in plan_lines(broken)
    assert any("cannot be measured: reward shine: ValueError: dark" in line for line in plan_lines(broken))
    assert not any(line.startswith("Rewards") for line in plan_lines(PLAN))
    document = plan_document(plan)
    assert document["rewards"] == [{"name": "memorization", "cost": "one pass"}, {"name": "shine", "cost": ""}]
    assert (document["reward_time_s"], document["reward_problem"]) == (0.5, None)


def test_without_a_terminal_every_event_is_one_line() -> None:
    stream = io.StringIO()
    run(SearchProgress(Console(file=stream, width=60)))
    lines = stream.getvalue().splitlines()[len(plan_lines(PLAN)) :]
    assert lines == [
        "trial 7 started: ia3 on k of 1 + lora 9 on q,v of 5 + serial_adapter 16 on ffn of 5, lr 0.001",
        "trial 7: accuracy 0.6100, 1,234 parameters, 12.5 s, best 0.6100 (trial 3) [4/48]",
        "trial 8 started: ia3 on k of 1 + lora 8-9 on q,v of 4-5 + serial_adapter 16 on ffn of 5, lr 0.001",
        "trial 8 failed (divergence): the loss became nan [5/48]",
        "Confirming [not markup] ...",
    ]
    assert "\x1b" not in stream.getvalue()


def test_quiet_says_nothing() -> None:
    stream = io.StringIO()
    run(SearchProgress(Console(file=stream), is_quiet=True))
    assert stream.getvalue() == ""


def test_a_terminal_gets_a_live_bar_that_is_taken_down() -> None:
    stream = io.StringIO()
    console = Console(file=stream, width=100, force_terminal=True, force_interactive=True)
    run(SearchProgress(console, is_live=True))
    text = stream.getvalue()
    assert "5/48" in text
    assert "trial 7: accuracy 0.6100" in text
    assert text.endswith("\x1b[?25h\r\x1b[1A\x1b[2K")  # the cursor is back and the bar's line is cleared


def test_ci_gets_lines_even_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    stream = io.StringIO()
    run(SearchProgress(Console(file=stream, width=100, force_terminal=True)))
    assert "[4/48]" in stream.getvalue()


def test_events_without_a_plan_are_shown_as_well() -> None:
    stream = io.StringIO()
    with SearchProgress(Console(file=stream)) as progress:
        progress.trial_finished(FOUND, None)
    assert stream.getvalue() == "trial 7: accuracy 0.6100, 1,234 parameters, 12.5 s\n"


def test_further_objectives_and_rewards_stand_in_a_trial_s_line() -> None:
    stream = io.StringIO()
    study = rewarded_study()
    with SearchProgress(Console(file=stream, width=200)) as progress:
        progress.plan(replace(PLAN, spec=study.spec))
        progress.trial_finished(study.trials[3], None)
    assert "trial 3 (baseline): accuracy 0.6100, memorization 0.3050, latency_s 4.25 ms, 3,000" in stream.getvalue()


def test_plan_names_the_rungs_and_what_confirmations_train() -> None:
    spec = replace(PLAN.spec, pruner="pareto", confirm_fidelity=Fidelity(train_examples=1350, epochs=3))
    plan = replace(PLAN, spec=spec, rungs=(29, 85), n_steps=255)
    lines = plan_lines(plan)
    assert "Rungs      after 29 and 85 of 255 steps, where pruner pareto may stop search trials early" in lines
    assert any(line.endswith("per trial; confirmations 1,350 examples, 3 epochs") for line in lines)
    assert not any(line.startswith("Rungs") or "confirmations 1" in line for line in plan_lines(PLAN))
    document = plan_document(plan)
    assert (document["pruner"], document["rungs"], document["n_steps"]) == ("pareto", [29, 85], 255)


def test_a_stopped_trial_says_where_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    at_rung = replace(FOUND.measurements[0], rung=Rung(step=29, n_steps=255))
    stopped = replace(FOUND, state=TrialState.PRUNED, measurements=(at_rung,))
    with SearchProgress(is_quiet=False) as progress:
        progress.plan(PLAN)
        progress.trial_pruned(stopped, "it can reach accuracy 0.6 at most")
    err = capsys.readouterr().err
    assert f"trial {FOUND.number} stopped early after 29 of 255 steps, accuracy" in err
    assert ": it can reach accuracy 0.6 at most [4/" in err


def test_a_trial_that_is_stopped_and_continued_counts_once(capsys: pytest.CaptureFixture[str]) -> None:
    early, late = (replace(FOUND.measurements[0], rung=Rung(step=step, n_steps=255)) for step in (29, 85))
    stopped = replace(FOUND, state=TrialState.PRUNED, measurements=(early,))
    with SearchProgress(is_quiet=False) as progress:
        progress.plan(PLAN)
        progress.trial_pruned(stopped, "")
        progress.trial_pruned(replace(stopped, measurements=(early, late)), "")
        progress.trial_finished(replace(FOUND, measurements=(early, late, *FOUND.measurements)), None)
        progress.trial_finished(FOUND, None)
    err = capsys.readouterr().err
    assert [err.count(f"[{n}/") for n in (4, 5, 6)] == [3, 1, 0]
