import inspect

from autopeft.cli._progress import SearchProgress
from autopeft.orchestrate import Progress, SilentProgress


def test_every_watcher_understands_every_event_with_the_same_arguments() -> None:
    events = [name for name, item in vars(Progress).items() if callable(item) and not name.startswith("_")]
    assert "trial_finished" in events
    for watcher in (SilentProgress, SearchProgress):
        for name in events:
            expected = inspect.signature(getattr(Progress, name)).parameters
            assert inspect.signature(getattr(watcher, name)).parameters.keys() == expected.keys()
