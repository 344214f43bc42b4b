from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from autopeft.exceptions import NotAllowedError, NotFoundError, UsageError
from autopeft.service._requests import ALLOWED, Rules, check_request, with_files
from autopeft.service._uploads import Upload

SHA = "0" * 64


def rules(folder: Path, **changes: Any) -> Rules:
    def find(reference: str) -> Upload:
        path = folder / reference.rpartition("/")[2]
        if not path.exists():
            raise NotFoundError(reference)
        return Upload(reference=reference, path=path, size=1)

    defaults = {"owner": "ada", "allow_code": False, "max_trials": 100, "find_upload": find}
    return Rules(**{**defaults, "has_study": lambda name: name == "earlier", **changes})  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "reviews.csv").touch()
    (tmp_path / "study.json").touch()
    (tmp_path / "plain.yaml").write_text((Path(__file__).parents[2] / "search_spaces" / "autopeft.yaml").read_text())
    (tmp_path / "code.yaml").write_text(
        (tmp_path / "plain.yaml").read_text() + "\nobjectives: [accuracy, 'os:getcwd']\n"
    )
    return tmp_path


def test_settings_come_back_without_defaults_and_ready_for_json(folder: Path) -> None:
    given = {"task": "stdlib/topics", "time": "10m", "objective": ["accuracy"], "train-fraction": "2%", "trials": 5}
    name, found = check_request(given, {"trials": 6, "epochs": None}, rules(folder))
    assert json.loads(json.dumps(found)) == {
        "task": "stdlib/topics",
        "time_s": 600.0,
        "objectives": ["accuracy"],
        "train_fraction": 0.02,
        "trials": 6,
        "study": name,
    }


def test_the_same_search_has_the_same_name_whatever_its_limits_and_another_callers_another(folder: Path) -> None:
    base = {"task": "stdlib/topics"}

    def name(owner: str = "ada", **changes: Any) -> str:
        return check_request({**base, **changes}, {}, rules(folder, owner=owner))[0]

    assert name() == name(trials=7) == name(time="5m") == name(device="cpu")
    assert len({name(), name(seed=1), name(budget="2%"), name(owner="bob"), name(epochs=3)}) == 5
    assert name(study="mine") == "mine"
    assert name(task=f"upload:{SHA}/reviews.csv").startswith("reviews-minilm-1pct-")


REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"task": "/etc/passwd"}, UsageError, "unknown task"),
    ({"task": "../data.csv"}, UsageError, "unknown task"),
    ({"task": "~/data.csv"}, UsageError, "unknown task"),
    ({"task": "upload:../x.csv"}, NotFoundError, "upload"),
    ({"task": f"upload:{SHA}/plain.yaml"}, UsageError, "must end in"),
    ({"data_dir": "/etc"}, NotAllowedError, "data_dir"),
    ({"executor": "workers"}, NotAllowedError, "executor"),
    ({"executor": "ray", "address": "ray://evil:1"}, NotAllowedError, "address, executor"),
    ({"trial_timeout_s": "9s"}, NotAllowedError, "trial_timeout_s: decided by the operator"),
    ({"memory_limit_bytes": "4G"}, NotAllowedError, "memory_limit_bytes: decided by the operator"),
    ({"space": "/etc/passwd"}, UsageError, "unknown search space"),
    ({"space": "my.yaml"}, UsageError, "unknown search space"),
    ({"space": f"upload:{SHA}/code.yaml"}, NotAllowedError, "os:getcwd"),
    ({"backbone": "/root/model"}, UsageError, "backbone"),
    ({"backbone": "./model"}, UsageError, "backbone"),
    ({"backbone": "a/.."}, UsageError, "backbone"),
    ({"backbone": "a/b/c"}, UsageError, "backbone"),
    ({"backbone": "a..b/c"}, UsageError, "backbone"),
    ({"revision": "../../refs"}, UsageError, "revision"),
    ({"revision": "a/../b"}, UsageError, "revision"),
    ({"warm_start": "/etc/study.json"}, UsageError, "warm_start"),
    ({"warm_start": "other"}, UsageError, "warm_start"),
    ({"warm_start": f"upload:{SHA}/reviews.csv"}, UsageError, "must end in"),
    ({"device": "cuda:0; rm"}, UsageError, "device"),
    ({"objectives": ["accuracy", "os:system"]}, NotAllowedError, "os:system"),
    ({"record": ["file.py:f"]}, NotAllowedError, "file.py:f"),
    ({"reward_options": {"forgetting": {"text": "/etc/passwd"}}}, NotAllowedError, "forgetting.text"),
    ({"reward_options": ["forgetting.text=/etc/passwd"]}, NotAllowedError, "forgetting.text"),
    ({"allow_pickle": True}, NotAllowedError, "allow_pickle"),
    ({"trust_remote_code": True}, NotAllowedError, "trust_remote_code"),
    ({"trials": 101}, NotAllowedError, "at most 100"),
    ({"seeds": 1000, "confirm_top": 1000}, NotAllowedError, "confirmations"),
    ({"trials": "many"}, UsageError, "trials"),
    ({"trials": float("nan")}, UsageError, "trials"),
    ({"study": "../../x"}, UsageError, "study"),
    ({"study": "<script>alert(1)</script>"}, UsageError, "study"),
    ({"study": "x'; DROP TABLE studies"}, UsageError, "study"),
    ({"study": ".hidden"}, UsageError, "study"),
    ({"study": "x" * 129}, UsageError, "study"),
    ({"study": "a\x00b"}, UsageError, "can be printed"),
    ({"study": "a\x1b[2J"}, UsageError, "can be printed"),
    ({"budget": "1" * 2000}, UsageError, "1000 characters"),
    ({"nonsense": 1}, UsageError, "unknown setting"),
    ({"task": ["a"]}, UsageError, "unknown task"),
    ({"task": None}, UsageError, "no task"),
]


@pytest.mark.parametrize(("changes", "kind", "message"), REFUSED, ids=[str(item[0])[:60] for item in REFUSED])
@pytest.mark.parametrize("way", ["settings", "overrides"])
def test_what_is_refused(folder: Path, changes: dict[str, Any], kind: type[Exception], message: str, way: str) -> None:
    base = {"task": "stdlib/topics"}
    given = (
        ({**base, **changes}, {}) if way == "settings" else ({} if changes.get("task", 1) is None else base, changes)
    )
    with pytest.raises(kind, match=message):
        check_request(*given, rules(folder))


def test_the_operator_may_allow_code(folder: Path) -> None:
    given = {"task": "stdlib/topics", "allow_pickle": True, "objectives": ["accuracy", "my.module:reward"]}
    _, found = check_request(given, {}, rules(folder, allow_code=True))
    assert found["allow_pickle"] is True


def test_every_setting_is_allowed_or_the_operators() -> None:
    """A setting that is added to searches must be thought about here: it is refused until it is listed."""
    from dataclasses import fields

    from autopeft.orchestrate import SearchSettings

    known = {item.name for item in fields(SearchSettings)}
    assert known >= ALLOWED
    assert known - ALLOWED == {"data_dir", "executor", "address", "workers", "worker_cpus", "worker_gpus"} | {
        "memory_limit_bytes",
        "trial_timeout_s",
    }


def test_uploads_and_earlier_studies_may_be_named(folder: Path) -> None:
    given = {
        "task": f"upload:{SHA}/reviews.csv",
        "space": f"upload:{SHA}/plain.yaml",
        "warm_start": f"upload:{SHA}/study.json",
    }
    _, found = check_request(given, {}, rules(folder))
    resolved = with_files(found, rules(folder).find_upload)
    assert [resolved[key] for key in given] == [
        str(folder / name) for name in ("reviews.csv", "plain.yaml", "study.json")
    ]
    assert (
        check_request({"task": "stdlib/topics", "warm_start": "earlier"}, {}, rules(folder))[1]["warm_start"]
        == "earlier"
    )
