import inspect

from autopeft.training._data import SplitData, TaskData
from tests.training.toys import toy_task


def test_a_task_has_everything_the_inner_loop_asks_for() -> None:
    task = toy_task()
    wanted = [name for name in vars(TaskData) if not name.startswith("_")]
    assert "evaluate" in wanted
    assert all(hasattr(task, name) for name in wanted)
    assert inspect.signature(task.evaluate).parameters.keys() == {"predictions", "targets"}
    for split in (task.train, task.search, task.report):
        assert all(hasattr(split, name) for name in vars(SplitData) if not name.startswith("_"))
