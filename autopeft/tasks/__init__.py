"""Tasks: data in three disjoint splits, a kind of head, and metrics. No torch."""

from autopeft.tasks._metrics import METRICS, Metric, compute_metrics
from autopeft.tasks._readers import READERS, Table, read_table
from autopeft.tasks._registry import TASKS, TaskDescription, list_tasks, load_task, reload_task
from autopeft.tasks._splits import stratified_order
from autopeft.tasks._task import CLASSIFICATION, REGRESSION, Split, Task

__all__ = [
    "CLASSIFICATION",
    "METRICS",
    "READERS",
    "REGRESSION",
    "TASKS",
    "Metric",
    "Split",
    "Table",
    "Task",
    "TaskDescription",
    "compute_metrics",
    "list_tasks",
    "load_task",
    "read_table",
    "reload_task",
    "stratified_order",
]
