"""Every module type at about the same number of parameters: step time, peak memory, and score.

Each type stands on all layers of MiniLM at the largest size within 0.5 % of the backbone's parameters; types that have
no size or cost little at any are run at what they cost, and `full`, of which 0.5 % is no layer, is left out. The time
of a training step is measured in rounds in which dense LoRA and the type alternate in one process, so that ratios hold
on a machine that has other work to do. Memory is what a process of its own needs beyond the resident backbone. Scores
are means over seeds on the search split, at the learning rate, of two, that is better with the first seed.

    python benchmarks/modules.py --times --memory --data-dir GLUE     # some minutes
    python benchmarks/modules.py --scores --data-dir GLUE             # an hour on two cores
    python benchmarks/modules.py --write docs/modules.md              # the table of what was measured

Results are kept in a JSON file (--results): an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch

from autopeft.backbones import load_backbone
from autopeft.configuration import (
    LINEAR_PARTS,
    BackboneShapes,
    Configuration,
    ModuleSpec,
    OptionValue,
    Site,
    parameter_count,
)
from autopeft.exceptions import ConfigurationError
from autopeft.modules import MODULES
from autopeft.study import Fidelity
from autopeft.tasks import load_task
from autopeft.training import Job, TrainingSettings, TrialRunner, select_precision

SHARE = 0.005
SEEDS = (1, 2, 3)
ROUNDS = 3
#: Types whose step takes more times LoRA's than this are timed but not scored.
SLOWEST = 5.0


@dataclass(frozen=True, kw_only=True)
class Run:
    """How much of a task is trained on, in how many epochs; what is scored, on how many examples at most."""

    fraction: float
    examples: int
    epochs: int
    metric: str
    search: int


TASKS = {
    "glue/sst2": Run(fraction=0.02, examples=1347, epochs=2, metric="accuracy", search=1000),
    "glue/stsb": Run(fraction=0.2, examples=500, epochs=2, metric="pearson", search=400),
}


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A module type as it is commonly used."""

    type: str
    parts: tuple[str, ...] = LINEAR_PARTS
    options: Mapping[str, OptionValue] = field(default_factory=dict)
    rates: tuple[float, float] = (1e-3, 5e-3)
    #: No larger, whatever the parameters: some sizes cost time that the count does not show.
    largest: int = 384


QV, FFN, BLOCKS = ("q", "v"), ("ffn",), ("attention", "ffn")
VARIANTS: dict[str, Variant] = {
    "LoRA": Variant(type="lora"),
    "LoRA on q,v": Variant(type="lora", parts=QV),
    "rsLoRA": Variant(type="lora", options={"scaling": "rslora"}),
    "LoRA+": Variant(type="lora", options={"rate_ratio": 16.0}, rates=(2e-4, 1e-3)),
    "PiSSA": Variant(type="lora", options={"init": "pissa"}),
    "LoRA-Pro": Variant(type="lora", options={"gradient": "pro"}),
    "DoRA": Variant(type="dora"),
    "LoHa": Variant(type="loha"),
    "LoKr": Variant(type="lokr"),
    "OFT": Variant(type="oft"),
    "BOFT": Variant(type="boft"),
    "HRA": Variant(type="hra"),
    "MiSS": Variant(type="miss"),
    "VeRA": Variant(type="vera", rates=(5e-3, 2e-2), largest=256),
    "MoLA, 4 experts on q,v": Variant(type="moe_lora", parts=QV, options={"experts": 4}),
    "MixLoRA, 4 experts": Variant(type="mix_lora", parts=FFN, options={"experts": 4}),
    "SHiRA, random": Variant(type="sparse"),
    "SHiRA, magnitude": Variant(type="sparse", options={"pick": "magnitude"}),
    "SHiRA, gradient": Variant(type="sparse", options={"pick": "gradient"}),
    "SHiRA, SNIP": Variant(type="sparse", options={"pick": "snip"}),
    "SaRA": Variant(type="sparse", options={"pick": "smallest", "redo": "once"}),
    "SpIEL (gradients)": Variant(type="sparse", options={"redo": "rigl"}),
    "SpIEL (SM3)": Variant(type="sparse", options={"redo": "sm3"}),
    "PaCA": Variant(type="columns"),
    "S2FT, channels": Variant(type="channels", parts=FFN),
    "serial adapter": Variant(type="serial_adapter", parts=FFN),
    "parallel adapter": Variant(type="parallel_adapter", parts=FFN),
    "MoSA": Variant(type="mosa", parts=FFN),
    "Compacter": Variant(type="compacter", parts=BLOCKS, options={"terms": 2}),
    "prefix": Variant(type="prefix", parts=("attention",)),
    "soft prompt, 16 tokens": Variant(type="soft_prompt", parts=("embedding",), rates=(5e-3, 2e-2), largest=16),
    "prompt generator": Variant(type="prompt_generator", parts=("attention",)),
    "SSF": Variant(type="ssf", parts=(*LINEAR_PARTS, "norm"), rates=(1e-3, 1e-2)),
    "(IA)3": Variant(type="ia3", parts=("k", "v", "down"), rates=(5e-3, 2e-2)),
    "BitFit": Variant(type="bitfit", parts=("bias",)),
    "LayerNorm": Variant(type="layer_norm", parts=("norm",)),
}  # fmt: skip


def configuration(variant: Variant, shapes: BackboneShapes, rate: float) -> Configuration:
    """The type on all layers, at the largest size within the share of the parameters."""
    kind = MODULES[variant.type]

    def build(size: int | None) -> Configuration:
        spec = ModuleSpec.make(variant.type, size, **variant.options)
        if variant.parts == ("embedding",):
            return Configuration.make([(Site(layer=None, part="embedding"), spec)], learning_rate=rate)
        pairs = [
            (Site(layer=index, part=part), spec)
            for index, layer in enumerate(shapes.layers)
            for part in variant.parts
            if part in layer.linears or part not in LINEAR_PARTS
        ]
        return Configuration.make(pairs, learning_rate=rate)

    if not kind.is_sized:
        return build(None)
    best: Configuration | None = None
    most = 0
    for size in range(1, min(shapes.hidden_size, variant.largest) + 1):
        try:
            candidate = build(size)
            count = parameter_count(candidate, shapes, MODULES)
        except ConfigurationError:
            continue  # some types take only sizes that divide the width
        if most < count <= SHARE * shapes.parameters:
            best, most = candidate, count
    if best is None:
        raise SystemExit(f"{variant.type}: no size fits.")
    return best


def make_runner(task: str, data_dir: Path | None, cache: Path) -> TrialRunner:
    """A runner on MiniLM, as a search would make it."""
    run = TASKS[task]
    data = load_task(task, data_dir=data_dir, train_fraction=run.fraction, max_search_examples=run.search)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    precision = select_precision("auto", torch.device(device))
    backbone = load_backbone("minilm", n_labels=data.n_labels, dtype=precision, device=device)
    return TrialRunner(backbone, data, TrainingSettings(), cache_dir=cache)


def measure_times(results: dict[str, Any], data_dir: Path | None, cache: Path) -> None:
    """Seconds per training example of each type against dense LoRA, alternating."""
    runner = make_runner("glue/sst2", data_dir, cache)
    shapes = runner.backbone.shapes
    reference = configuration(VARIANTS["LoRA"], shapes, 1e-3)
    runner.probe(reference)
    for name, variant in VARIANTS.items():
        row = results.setdefault(name, {})
        chosen = configuration(variant, shapes, variant.rates[0])
        row["parameters"] = parameter_count(chosen, shapes, MODULES)
        if "time" in row:
            continue
        ratios = []
        for _ in range(ROUNDS):
            base = runner.probe(reference).train_s_per_example
            ratios.append(runner.probe(chosen).train_s_per_example / base)
        low, middle, high = statistics.quantiles(ratios, n=4)
        row["time"] = {"median": middle, "low": low, "high": high}
        print(f"{name}: {middle:.2f} [{low:.2f}, {high:.2f}] times a step of LoRA", flush=True)
        keep(results)


def measure_memory(results: dict[str, Any], data_dir: Path | None) -> None:
    """Memory of each type beyond the backbone's, each in a process of its own."""
    for name in VARIANTS:
        row = results.setdefault(name, {})
        if "memory_bytes" in row:
            continue
        command = [sys.executable, __file__, "--one", name]
        command += [] if data_dir is None else ["--data-dir", str(data_dir)]
        found = subprocess.run(command, check=True, capture_output=True, text=True)
        row["memory_bytes"] = json.loads(found.stdout.splitlines()[-1])
        print(f"{name}: {row['memory_bytes'] / 2**20:.0f} MiB", flush=True)
        keep(results)


def measure_one(name: str, data_dir: Path | None) -> None:
    """Print the memory of one type."""
    with tempfile.TemporaryDirectory() as folder:
        runner = make_runner("glue/sst2", data_dir, Path(folder))
        chosen = configuration(VARIANTS[name], runner.backbone.shapes, 1e-3)
        before = psutil.Process().memory_info().rss
        peak = runner.probe(chosen).peak_memory_bytes
        print(json.dumps(None if peak is None else peak - before))


def measure_scores(results: dict[str, Any], data_dir: Path | None, cache: Path) -> None:
    """Scores of each type over seeds."""
    for task in TASKS:
        runner = make_runner(task, data_dir, cache)
        for name, variant in VARIANTS.items():
            if is_slow(results.get(name, {})):
                continue
            scores = results.setdefault(name, {}).setdefault("scores", {}).setdefault(task, {})
            better = max(
                variant.rates, key=lambda rate: score_of(runner, variant, rate, SEEDS[0], task, scores, results)
            )
            for seed in SEEDS[1:]:
                score_of(runner, variant, better, seed, task, scores, results)
            print(f"{task} {name}: {_score(scores, variant)}", flush=True)


def is_slow(row: Mapping[str, Any]) -> bool:
    """Whether a type's step is too slow for three seeds of two tasks."""
    return "time" in row and row["time"]["median"] > SLOWEST


def score_of(
    runner: TrialRunner,
    variant: Variant,
    rate: float,
    seed: int,
    task: str,
    scores: dict[str, Any],
    results: Mapping[str, Any],
) -> float:
    """One run's score on the search split, measured unless it is known; -2 for a failure."""
    key = f"{rate:g}/{seed}"
    if key not in scores:
        run = TASKS[task]
        examples = min(run.examples, len(runner.task.train.texts))
        fidelity = Fidelity(train_examples=examples, epochs=run.epochs)
        chosen = configuration(variant, runner.backbone.shapes, rate)
        outcome = runner.run([Job(configuration=chosen, seed=seed, fidelity=fidelity)])[0]
        scores[key] = outcome.failure.reason if outcome.failure else outcome.measurements[0].metrics.get(run.metric)
        keep(results)
    return scores[key] if isinstance(scores[key], float) else -2.0


def _score(scores: Mapping[str, float | str], variant: Variant) -> str:
    """Mean and standard error at the better learning rate."""
    best: tuple[float, float, float] | None = None
    for rate in variant.rates:
        values = [value for seed in SEEDS if isinstance(value := scores.get(f"{rate:g}/{seed}"), float)]
        if len(values) == len(SEEDS):
            error = statistics.stdev(values) / len(values) ** 0.5
            best = max(best or (-2.0, 0.0, 0.0), (statistics.mean(values), error, rate))
    return "" if best is None else f"{100 * best[0]:.1f} ± {100 * best[1]:.1f} ({best[2]:g})"


def write_table(results: Mapping[str, Any], path: Path) -> None:
    """The page with the table."""
    memory = results.get("LoRA", {}).get("memory_bytes")
    head = ["module", "type", "parameters", "step time", "memory", *(f"{task} ± s.e. (lr)" for task in TASKS)]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, variant in VARIANTS.items():
        row = results.get(name, {})
        spent, held = row.get("time"), row.get("memory_bytes")
        cells = [
            name,
            f"`{variant.type}` on {','.join(variant.parts) if variant.parts != LINEAR_PARTS else 'all linears'}",
            f"{row['parameters']:,}" if "parameters" in row else "",
            f"{spent['median']:.2f} [{spent['low']:.2f}, {spent['high']:.2f}]" if spent else "",
            f"{held / memory:.2f}" if held and memory else "",
            *(_score(row.get("scores", {}).get(task, {}), variant) or "too slow" * is_slow(row) for task in TASKS),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    text = __doc__.split("\n\n", 2)[1].replace("\n", " ") if __doc__ else ""
    metrics = ", ".join(f"{name}: {run.metric}" for name, run in TASKS.items())
    lengths = ", ".join(f"{run.examples:,} examples x {run.epochs}" for run in TASKS.values())
    note = (
        "Step time and memory are relative to dense LoRA on all linear maps; step times are medians with quartiles "
        f"over {ROUNDS} rounds. Scores are in points ({metrics}; x 100), means of {len(SEEDS)} seeds with standard "
        "errors; the learning rate, of two, that is better with the first seed is in brackets. They compare short "
        f"trainings ({lengths} epochs), not what the types can reach. Types whose step takes more than {SLOWEST:g} "
        "times LoRA's are not scored. An empty cell has not been measured. CoLA is no second task: at 1,350 examples "
        "and five epochs the Matthews correlations of LoRA, adapters, BitFit and full fine-tuning lie between 0 and "
        "0.21, many of them 0 because the majority class is answered. Written by `benchmarks/modules.py`."
    )
    page = f"# Module types side by side\n\n{text}\n\n{note}\n\n" + "\n".join(lines) + "\n"
    path.write_text(page, encoding="utf-8")


RESULTS = Path("modules.json")


def keep(results: Mapping[str, Any]) -> None:
    """Keep what has been measured."""
    RESULTS.write_text(json.dumps(results, indent=1), encoding="utf-8")


def main() -> None:
    """Read the command line."""
    global RESULTS
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="folder with GLUE; from the hub if left out")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--times", action="store_true")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--scores", action="store_true")
    parser.add_argument("--one", choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("--write", type=Path)
    arguments = parser.parse_args()
    if arguments.one is not None:
        measure_one(arguments.one, arguments.data_dir)
        return
    RESULTS = arguments.results
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        if arguments.times:
            measure_times(results, arguments.data_dir, Path(folder))
        if arguments.memory:
            measure_memory(results, arguments.data_dir)
        if arguments.scores:
            measure_scores(results, arguments.data_dir, Path(folder))
    if arguments.write is not None:
        write_table(results, arguments.write)


if __name__ == "__main__":
    main()
