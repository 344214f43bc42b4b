"""What is told about the jobs of a call, and what becomes of their checkpoints."""

from __future__ import annotations

import pytest
import torch

from autopeft.study import CurvePoint
from autopeft.training._call import CallbackError, RunCall
from autopeft.training._checkpoint import Checkpoint
from autopeft.training._checkpoints import CheckpointFolder
from tests.training.toys import job, lora

JOBS = [job(lora((layer,))) for layer in range(3)]


def point(step: int) -> CurvePoint:
    return CurvePoint(step=step, epoch=step / 5, metrics={}, wall_time_s=float(step))


def checkpoint(step: int) -> Checkpoint:
    return Checkpoint(
        step=step,
        curve=tuple(point(i) for i in range(1, step + 1)),
        counters={"wall_time_s": 100.0},
        peak_memory_bytes=None,
        tensors={"a": torch.ones(2)},
        moments={},
        row_updates=[],
        modules=[],
        dynamics={},
    )


def make(folder: CheckpointFolder | None = None, on_point=None, on_resume=None) -> RunCall:
    return RunCall(
        JOBS,
        on_point=on_point,
        on_resume=on_resume,
        keep_state=False,
        folder=folder,
        key=lambda item: f"layer{item.configuration.lowest_layer}",
        device=torch.device("cpu"),
    )


def test_points_are_told_once_also_when_a_cohort_trains_again_in_halves() -> None:
    told: list[tuple[int, int]] = []

    def on_point(index: int, item: CurvePoint) -> bool:
        told.append((index, item.step))
        return (index, item.step) == (2, 2)

    call = make(on_point=on_point)
    together = call.report([0, 2])
    assert [together(k, point(step)) for step in (1, 2) for k in (0, 1)] == [False, False, False, True]
    alone = call.report([2])
    # The answer to a point that was told is remembered; one that was not stopped there goes on.
    assert [alone(0, point(step)) for step in (1, 2)] == [False, True]
    assert told == [(0, 1), (2, 1), (0, 2), (2, 2)]


def test_nobody_need_listen() -> None:
    assert make().report([0])(0, point(1)) is False


def test_what_a_callback_raises_is_told_apart() -> None:
    def on_point(*_: object) -> bool:
        raise RuntimeError("the database is gone")

    with pytest.raises(CallbackError, match="the database is gone") as caught:
        make(on_point=on_point).report([0])(0, point(1))
    assert isinstance(caught.value.cause, RuntimeError)


def test_jobs_go_on_where_their_checkpoints_are(tmp_path) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save("layer1", checkpoint(3), seconds=100)
    folder.save("layer2", checkpoint(5), seconds=100)
    told: list[tuple[int, int]] = []

    def on_resume(index: int, curve: tuple[CurvePoint, ...]) -> bool:
        told.append((index, len(curve)))
        return index == 2

    call = make(folder, on_resume=on_resume)
    assert told == [(1, 3), (2, 5)]
    assert [call.start(index) for index in range(3)] == [0, 3, 5]
    assert [call.is_stopped(index) for index in range(3)] == [False, False, True]
    assert [item.step for item in call.checkpoints([1, 2])] == [3, 5]
    assert call.checkpoints([0]) == []
    # What lies behind is not told again.
    assert call.report([1])(0, point(2)) is False


def test_ended_and_forgotten_jobs_leave_no_file(tmp_path, caplog) -> None:
    folder = CheckpointFolder(tmp_path)
    for index in range(3):
        folder.save(f"layer{index}", checkpoint(index + 1), seconds=100)
    call = make(folder)
    call.ended(0)
    call.forget([1], ValueError("of another kind."))
    assert "of another kind. The trial begins again." in caplog.text
    assert [call.start(index) for index in range(3)] == [1, 0, 3]
    assert [path.name for path in tmp_path.iterdir()] == ["layer2.checkpoint"]


def test_checkpoints_are_kept_only_where_there_is_a_folder(tmp_path) -> None:
    assert make().keep([0]) is None
    make().ended(0)
    keep = make(CheckpointFolder(tmp_path)).keep([2, 1])
    assert keep is not None
    keep(1, 100.0, lambda: checkpoint(3))
    assert [path.name for path in tmp_path.iterdir()] == ["layer1.checkpoint"]
