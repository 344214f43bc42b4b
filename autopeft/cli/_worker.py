"""``autopeft worker``: trains trials that searches elsewhere ask for."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from autopeft.cli._environment import cache_folder, database_url
from autopeft.cli._log import LogFormatOption, records_shown
from autopeft.cli._options import ArtifactsOption, DatabaseOption
from autopeft.cli._workers import workers_module

if TYPE_CHECKING:
    from collections.abc import Callable

_MACHINE = "What it may take of the machine"
_LIFE = "How long it works"


def worker(
    *,
    db: DatabaseOption = None,
    artifacts: ArtifactsOption = None,
    study: Annotated[
        list[str] | None,
        typer.Option(
            "--study", help="Serve this study; may be given several times. Default: all that ask for workers."
        ),
    ] = None,
    device: Annotated[
        str, typer.Option("--device", rich_help_panel=_MACHINE, help="auto, cpu, cuda, cuda:1, ...")
    ] = "auto",
    gpu_share: Annotated[
        float,
        typer.Option(
            "--gpu-share", rich_help_panel=_MACHINE, help="Share of the GPU's memory: 0.5 for two workers on one."
        ),
    ] = 1.0,
    threads: Annotated[
        int | None,
        typer.Option("--threads", rich_help_panel=_MACHINE, help="Threads on the CPU. Default: all cores."),
    ] = None,
    cohort: Annotated[
        int | None,
        typer.Option(
            "--cohort",
            rich_help_panel=_MACHINE,
            help="Configurations trained as one batch. Default: the study's, else by the hardware, 1 on a CPU.",
        ),
    ] = None,
    memory_limit: Annotated[
        str | None,
        typer.Option(
            "--memory-limit",
            metavar="SIZE",
            rich_help_panel=_MACHINE,
            help="A trial that grows beyond it fails: 4G, 512M. Default: none.",
        ),
    ] = None,
    trial_timeout: Annotated[
        str,
        typer.Option(
            "--trial-timeout",
            metavar="DURATION",
            rich_help_panel=_LIFE,
            help="A trial that shows no sign for so long fails: 90s, 10m, 1h. More than an epoch takes.",
        ),
    ] = "1h",
    idle_timeout: Annotated[
        str | None,
        typer.Option(
            "--idle-timeout", metavar="DURATION", rich_help_panel=_LIFE, help="End after so long without a trial."
        ),
    ] = None,
    once: Annotated[bool, typer.Option("--once", rich_help_panel=_LIFE, help="End after one trial.")] = False,
    lease: Annotated[
        str,
        typer.Option(
            "--lease",
            metavar="DURATION",
            rich_help_panel=_LIFE,
            help="A trial is given to another worker when this one was not heard of for so long.",
        ),
    ] = "60s",
    allow_code: Annotated[
        bool,
        typer.Option(
            "--allow-code",
            help="Run code that studies name: reward functions, code that comes with a backbone, pickled weights. "
            "Whoever can write to the database then runs code here.",
        ),
    ] = False,
    log_format: LogFormatOption = None,
) -> None:
    """Train trials of searches with --executor workers, on any machine that reaches their database.

    Ends with Ctrl-C or SIGTERM, and gives back what it holds.
    """
    from autopeft.artifacts import parse_address
    from autopeft.orchestrate import parse_bytes, parse_duration
    from autopeft.store import open_store

    if artifacts is not None:
        # A mistake in it would else be said by every study that is refused.
        parse_address(artifacts)
    settings = workers_module("settings").WorkerSettings(
        cache_dir=cache_folder(),
        studies=tuple(study or ()),
        device=device,
        gpu_share=gpu_share,
        threads=threads,
        cohort=cohort,
        memory_limit_bytes=None if memory_limit is None else parse_bytes(memory_limit),
        trial_timeout_s=parse_duration(trial_timeout),
        idle_timeout_s=None if idle_timeout is None else parse_duration(idle_timeout),
        is_once=once,
        lease_s=parse_duration(lease),
        allow_code=allow_code,
        artifacts=artifacts,
    )
    with open_store(database_url(db)) as store, records_shown("autopeft.worker"):
        supervisor = workers_module("supervisor").Supervisor(store, settings)
        with _stopped_by_signals(supervisor.stop):
            logging.getLogger("autopeft.worker").info("worker %s serves %s.", supervisor.id, store.url)
            n_trials = supervisor.run()
            logging.getLogger("autopeft.worker").info("worker %s ends after %d trials.", supervisor.id, n_trials)


@contextmanager
def _stopped_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    """SIGTERM and Ctrl-C ask to stop; a second Ctrl-C insists."""

    def on_signal(number: int, _frame: object) -> None:
        stop()
        signal.signal(number, previous[number])

    wanted: tuple[int, ...] = (signal.SIGTERM, signal.SIGINT)
    previous = {number: signal.getsignal(number) for number in wanted}
    for number in wanted:
        signal.signal(number, on_signal)
    try:
        yield
    finally:
        for number in wanted:
            signal.signal(number, previous[number])
