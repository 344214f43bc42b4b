from pathlib import Path

import pytest

from autopeft.exceptions import UnknownNameError, UsageError
from autopeft.orchestrate import SearchSettings, parse_bytes, parse_duration, parse_share, resume_command


def test_flags_override_the_file() -> None:
    base = {"task": "glue/sst2", "trials": 10, "train-fraction": "2%", "data_dir": "/data", "objectives": "accuracy"}
    settings = SearchSettings.make(base, {"trials": 5, "seed": None})
    assert settings.trials == 5
    assert settings.train_fraction == pytest.approx(0.02)
    assert settings.data_dir == Path("/data")
    assert settings.objectives == ("accuracy",)


def test_unknown_settings_name_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean budget"):
        SearchSettings.make({"task": "x", "buget": "1%"}, {})


@pytest.mark.parametrize(("given", "expected"), [("no", False), ("Yes", True), ("off", False), (True, True)])
def test_a_flag_in_a_file_is_said_in_any_of_yamls_words(given: object, expected: bool) -> None:
    assert SearchSettings.make({"task": "x", "baselines": given}, {}).baselines is expected


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "no task given"),
        ({"task": "x", "trials": 0}, "--trials must be at least 1"),
        ({"task": "x", "trials": 2.5}, "trials cannot be 2.5"),
        ({"task": "x", "baselines": "maybe"}, "baselines cannot be 'maybe'"),
        ({"task": "x", "train_fraction": "0%"}, "--train-fraction must lie"),
        ({"task": "x", "train_fraction": "two"}, "a share is written like"),
        ({"task": "x", "time_s": "soon"}, "a duration is written like"),
        ({"task": "x", "time_s": 0}, "--time must be positive"),
        ({"task": "x", "precision": "half"}, "unknown precision"),
        ({"task": "x", "kind": "ranking"}, "unknown kind"),
    ],
)
def test_impossible_settings_say_what_is_wrong(values: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SearchSettings.make(values, {})


def test_durations_and_shares() -> None:
    assert [parse_duration(text) for text in ("90s", "10m", "1.5h", "30", 45)] == [90, 600, 5400, 30, 45]
    assert parse_share("2%") == pytest.approx(0.02)
    assert parse_share(0.5) == 0.5


@pytest.mark.parametrize(
    ("text", "expected"),
    [("4G", 4 * 2**30), ("512M", 512 * 2**20), ("1.5GiB", 3 * 2**29), ("2gb", 2**31), ("1000", 1000), ("10k", 10240)],
)
def test_sizes_are_read(text: str, expected: int) -> None:
    assert parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "G", "many", "4X", "nan"])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="a size is written like 4G"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"memory_limit": "4G"},
            r"--memory-limit goes with --executor ray, but the executor is local, .* keeps workers on this",
        ),
        ({"trial_timeout": "9s"}, r"--trial-timeout goes with --executor ray, but the executor is local, which trains"),
        (
            {"executor": "workers", "memory_limit": "4G", "trial_timeout": "9s"},
            "--memory-limit and --trial-timeout go with --executor ray, but the executor is workers, whose workers are "
            "started elsewhere: give --memory-limit and --trial-timeout to each `autopeft worker`",
        ),
        ({"executor": "ray", "memory_limit": "4k"}, "--memory-limit must be at least 1M, but got 4096 bytes"),
        ({"executor": "ray", "memory_limit": "lots"}, "a size is written like 4G or 512M, but got 'lots'"),
        ({"executor": "ray", "trial_timeout": 0}, "--trial-timeout must be positive, but got 0 seconds"),
        ({"executor": "ray", "trial_timeout": "soon"}, "a duration is written like 90s"),
    ],
)
def test_limits_of_a_trial_are_refused_where_nobody_keeps_them(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SearchSettings.make({"task": "x", **changes}, {})


def test_limits_of_a_trial_are_in_the_command_that_goes_on() -> None:
    given = {"executor": "ray", "memory-limit": "1.5G", "trial-timeout": "1.5h"}
    settings = SearchSettings.make({"task": "x"} | given, {})
    assert (settings.memory_limit_bytes, settings.trial_timeout_s) == (3 * 2**29, 5400)
    words = resume_command(settings).split()
    flags = ("memory_limit_bytes", "--memory-limit"), ("trial_timeout_s", "--trial-timeout")
    again = {name: words[words.index(flag) + 1] for name, flag in flags}
    assert SearchSettings.make({"task": "x", "executor": "ray"}, again) == settings


def test_a_file_may_spell_settings_as_flags_and_leave_them_empty() -> None:
    base = {"task": "x", "time": "10m", "objective": ["accuracy"], "text-column": "text", "trials": None}
    settings = SearchSettings.make(base, {})
    assert (settings.time_s, settings.objectives, settings.text_columns) == (600, ("accuracy",), ("text",))
    assert settings.trials == SearchSettings(task="x").trials
    with pytest.raises(UsageError, match="trials cannot be inf"):
        SearchSettings.make({"task": "x", "trials": float("inf")}, {})


def test_reward_options_are_read_from_flags_and_from_yaml() -> None:
    expected = {"memorization": {"share": "0.2", "max_examples": "200"}, "robustness": {"share": "0.3"}}
    flags = ["memorization.share=0.2", "memorization.max_examples = 200", "robustness.share=0.3"]
    assert SearchSettings.make({}, {"task": "t", "reward_options": flags}).reward_options == expected
    data = {"task": "t", "reward-options": {"memorization": {"share": 0.2}}}
    assert SearchSettings.make(data, {}).reward_options == {"memorization": {"share": 0.2}}
    assert SearchSettings.make({"task": "t", "record": "latency_s"}, {}).record == ("latency_s",)


@pytest.mark.parametrize("value", ["share=0.2", "memorization.share", ".share=1", "memorization.=1", {"robustness": 3}])
def test_reward_options_that_cannot_be_read_say_how_to_write_them(value: object) -> None:
    with pytest.raises(UsageError, match=r"is written like memorization.share=0.2"):
        SearchSettings.make({"task": "t", "reward_options": value}, {})
