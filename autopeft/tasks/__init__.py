"""Tasks: data in three disjoint splits, a kind of head, and metrics. No torch."""

from autopeft.tasks._metrics import METRICS, Metric, compute_metrics
from autopeft.tasks._registry import TASKS, TaskDescription, list_tasks, load_task, reload_task
from autopeft.tasks._splits import stratified_order
from autopeft.tasks._task import CLASSIFICATION, REGRESSION, Split, Task

__all__ = [
    "CLASSIFICATION",
    "METRICS",
    "REGRESSION",
    "TASKS",
    "Metric",
    "Split",
    "Task",
    "TaskDescription",
    "compute_metrics",
    "list_tasks",
    "load_task",
    "reload_task",
    "stratified_order",
]
