"""The flags that say what is searched: one per field of `autopeft.orchestrate.SearchSettings`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

_SPACE = "What is searched"
_DATA = "Data"
_TRAINING = "Training"
_LIMITS = "How much is searched"
_WHERE = "Where trials run"

#: Flag of every field. None means not given: defaults are the fields' own, so that a configuration file can set them.
SEARCH_FLAGS: dict[str, Any] = {
    "task": Annotated[
        str | None,
        typer.Option("--task", help="Name (see `autopeft tasks`), or path of a CSV, TSV, JSONL or Parquet file."),
    ],
    "budget": Annotated[
        str | None,
        typer.Option(
            "--budget",
            help="Most trainable PEFT parameters, task head not counted: 1% of the backbone, or 300k. Default: 1%.",
        ),
    ],
    "backbone": Annotated[
        str | None,
        typer.Option("--backbone", help="Name (see `autopeft backbones`), local folder, or hub id. Default: minilm."),
    ],
    "study": Annotated[
        str | None, typer.Option("--study", help="Name of the study. Default: made from the settings that define it.")
    ],
    "space": Annotated[
        str | None,
        typer.Option("--space", rich_help_panel=_SPACE, help="Search space: name or YAML file. Default: default."),
    ],
    "sampler": Annotated[
        str | None,
        typer.Option(
            "--sampler", rich_help_panel=_SPACE, help="bayesian, saas, tpe, nsga2 or random. Default: bayesian."
        ),
    ],
    "objectives": Annotated[
        list[str] | None,
        typer.Option(
            "--objective",
            rich_help_panel=_SPACE,
            help="Metric, cost or reward to optimise (see `autopeft rewards`), or a function of your own, which is "
            "then run: package.module:function or file.py:function. May be given several times. Default: the space's "
            "own, else the task's first metric and trainable_parameters.",
        ),
    ],
    "constraints": Annotated[
        list[str] | None,
        typer.Option(
            "--constraint",
            metavar="BOUND",
            rich_help_panel=_SPACE,
            help="What the front must keep, in quotes: 'wall_time_s<=30', 'trainable_parameters<=100k', "
            "'accuracy>=0.6' (any metric, cost or recorded reward), or 'export_class=lora,merge'. What training alone "
            "shows is learned by samplers bayesian and saas; others look at it only when the front is drawn. May be "
            "given several times.",
        ),
    ],
    "record": Annotated[
        list[str] | None,
        typer.Option(
            "--record",
            rich_help_panel=_SPACE,
            help="Reward to measure and store beside the objectives, named alike; may be given several times.",
        ),
    ],
    "reward_options": Annotated[
        list[str] | None,
        typer.Option(
            "--reward-option",
            metavar="REWARD.OPTION=VALUE",
            rich_help_panel=_SPACE,
            help="Option of a built-in reward, like memorization.share=0.2; may be given several times.",
        ),
    ],
    "trials": Annotated[
        int | None,
        typer.Option(
            "--trials", rich_help_panel=_LIMITS, help="Search trials the study should have in the end. Default: 16."
        ),
    ],
    "time_s": Annotated[
        str | None,
        typer.Option("--time", rich_help_panel=_LIMITS, help="No new search trial after this long: 90s, 10m, 1.5h."),
    ],
    "seeds": Annotated[
        int | None,
        typer.Option("--seeds", rich_help_panel=_LIMITS, help="Seeds per confirmed configuration. Default: 3."),
    ],
    "confirm_top": Annotated[
        int | None,
        typer.Option(
            "--confirm-top",
            rich_help_panel=_LIMITS,
            help="Front members retrained over seeds and scored on the report split; 0 for none. Default: 5.",
        ),
    ],
    "baselines": Annotated[
        bool | None,
        typer.Option("--baselines/--no-baselines", rich_help_panel=_LIMITS, help="Run the baselines. Default: yes."),
    ],
    "seed": Annotated[int | None, typer.Option("--seed", rich_help_panel=_LIMITS, help="Of the study. Default: 0.")],
    "warm_start": Annotated[
        str | None,
        typer.Option(
            "--warm-start",
            metavar="auto|STUDY|FILE|none",
            rich_help_panel=_LIMITS,
            help="Earlier studies to learn from: those of the database that fit, one study, or a file that "
            "`autopeft db export` wrote. Default: auto.",
        ),
    ],
    "data_dir": Annotated[
        Path | None,
        typer.Option(
            "--data-dir",
            envvar="AUTOPEFT_DATA_DIR",
            metavar="DIR",
            rich_help_panel=_DATA,
            show_default=False,
            help="Folder with the task's files in their official layout. Default: the hub.",
        ),
    ],
    "text_columns": Annotated[
        list[str] | None,
        typer.Option(
            "--text-column", rich_help_panel=_DATA, help="Text column of your file; twice for pairs of texts."
        ),
    ],
    "label_column": Annotated[
        str | None, typer.Option("--label-column", rich_help_panel=_DATA, help="Label column of your file.")
    ],
    "kind": Annotated[
        str | None,
        typer.Option("--kind", rich_help_panel=_DATA, help="classification or regression. Default: by the labels."),
    ],
    "train_fraction": Annotated[
        str | None,
        typer.Option(
            "--train-fraction", rich_help_panel=_DATA, help="Share of the training data used: 2% or 0.02. Default: all."
        ),
    ],
    "train_examples": Annotated[
        int | None,
        typer.Option(
            "--train-examples", rich_help_panel=_TRAINING, help="Training examples per trial. Default: the task's."
        ),
    ],
    "epochs": Annotated[
        int | None, typer.Option("--epochs", rich_help_panel=_TRAINING, help="Passes over them. Default: the task's.")
    ],
    "fidelity": Annotated[
        str | None,
        typer.Option(
            "--fidelity",
            rich_help_panel=_LIMITS,
            help="auto stops search trials early that cannot reach the front, full trains every one to its end, low or "
            "a share like 25% trains them on fewer examples. Confirmations are always full. Default: full.",
        ),
    ],
    "pruner": Annotated[
        str | None,
        typer.Option(
            "--pruner",
            rich_help_panel=_LIMITS,
            help="What stops search trials early: pareto, median, mo_asha or none. Default: by the fidelity.",
        ),
    ],
    "batch_size": Annotated[
        int | None, typer.Option("--batch-size", rich_help_panel=_TRAINING, help="Examples per step. Default: 16.")
    ],
    "max_tokens": Annotated[
        int | None,
        typer.Option("--max-tokens", rich_help_panel=_TRAINING, help="Longer texts are cut off. Default: 128."),
    ],
    "precision": Annotated[
        str | None,
        typer.Option(
            "--precision",
            rich_help_panel=_TRAINING,
            help="Of the frozen weights: auto (measured), bfloat16 or float32. Default: auto.",
        ),
    ],
    "device": Annotated[
        str | None,
        typer.Option("--device", rich_help_panel=_TRAINING, help="auto, cpu, cuda, cuda:1, ... Default: auto."),
    ],
    "cohort": Annotated[
        int | None,
        typer.Option(
            "--cohort",
            rich_help_panel=_TRAINING,
            help="Configurations trained as one batch. Default: by the hardware, 1 on a CPU.",
        ),
    ],
    "allow_pickle": Annotated[
        bool | None,
        typer.Option(
            "--allow-pickle", help="Load weights that are not safetensors. They can run code: trust the source."
        ),
    ],
    "trust_remote_code": Annotated[
        bool | None,
        typer.Option("--trust-remote-code", help="Run code that comes with the backbone: trust the source."),
    ],
    "revision": Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit of a hub backbone.")],
    "executor": Annotated[
        str | None,
        typer.Option(
            "--executor",
            metavar="local|workers|ray",
            rich_help_panel=_WHERE,
            help="Where trials run: in this process, in every `autopeft worker` that reaches the database, or on a Ray "
            "cluster. Default: local.",
        ),
    ],
    "address": Annotated[
        str | None,
        typer.Option(
            "--address",
            metavar="auto|ray://HOST:PORT",
            rich_help_panel=_WHERE,
            help="Ray cluster for --executor ray. Default: one that is started on this machine.",
        ),
    ],
    "workers": Annotated[
        int | None,
        typer.Option(
            "--workers", rich_help_panel=_WHERE, help="Most Ray workers. Default: as many as the cluster can hold."
        ),
    ],
    "worker_cpus": Annotated[
        float | None,
        typer.Option("--worker-cpus", rich_help_panel=_WHERE, help="Cores of each Ray worker. Default: 1.0."),
    ],
    "worker_gpus": Annotated[
        float | None,
        typer.Option(
            "--worker-gpus",
            rich_help_panel=_WHERE,
            help="GPUs of each Ray worker; 0.5 puts two on one. Default: 1 where the cluster has GPUs, else 0.",
        ),
    ],
    "memory_limit_bytes": Annotated[
        str | None,
        typer.Option(
            "--memory-limit",
            metavar="SIZE",
            rich_help_panel=_WHERE,
            help="A trial on a Ray worker that grows beyond it fails: 4G, 512M. Default: none.",
        ),
    ],
    "trial_timeout_s": Annotated[
        str | None,
        typer.Option(
            "--trial-timeout",
            metavar="DURATION",
            rich_help_panel=_WHERE,
            help="A trial on a Ray worker that shows no sign for so long fails: 90s, 10m, 1h. More than an epoch "
            "takes. Default: 1h.",
        ),
    ],
}


def takes_search_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command that takes ``**flags`` all of `SEARCH_FLAGS`, before its own options."""
    own = inspect.signature(command, eval_str=True).parameters.values()
    flags = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for name, annotation in SEARCH_FLAGS.items()
    ]

    @functools.wraps(command)
    def wrapper(**given: Any) -> None:
        command(**given)

    named = [item for item in own if item.kind is not inspect.Parameter.VAR_KEYWORD]
    # Typer reads a command's options from its signature.
    wrapper.__signature__ = inspect.Signature([*flags, *named])  # type: ignore[attr-defined]
    return wrapper
