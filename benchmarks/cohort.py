"""Trials per hour against the number of configurations trained as one batch, and against Trainer + peft.

Candidates are LoRA configurations of different ranks, parts, layers and learning rates over one randomly initialised
backbone; texts are random words. Speed is all that is measured: nothing here can be learned.

    python benchmarks/cohort.py --size small                        # a CPU, about two minutes
    python benchmarks/cohort.py --size bert-base llama-1b --cohorts 1 2 4 8 16 32 64      # a GPU
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedTokenizerFast

from autopeft.backbones import wrap_model
from autopeft.configuration import Configuration, ModuleSpec, Site
from autopeft.exceptions import OutOfMemoryError
from autopeft.objectives import Direction
from autopeft.study import Fidelity
from autopeft.tasks import Split, Task
from autopeft.training import Job, TrainingSettings, TrialRunner, select_precision

N_WORDS = 1000
SIZES: dict[str, dict[str, Any]] = {
    "small": {
        "model_type": "bert", "hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4,
        "intermediate_size": 512,
    },
    "minilm": {
        "model_type": "bert", "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12,
        "intermediate_size": 1536,
    },
    "bert-base": {
        "model_type": "bert", "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
        "intermediate_size": 3072, "vocab_size": 30522,
    },
    "llama-1b": {
        "model_type": "llama", "hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 32,
        "num_key_value_heads": 8, "head_dim": 64, "intermediate_size": 8192, "vocab_size": 128256,
    },
}  # fmt: skip
#: peft's names of the parts, by architecture.
NAMES = {
    "bert": {"q": "query", "k": "key", "v": "value", "down": r"output\.dense"},
    "llama": {"q": "q_proj", "k": "k_proj", "v": "v_proj", "down": "down_proj"},
}


@dataclasses.dataclass(frozen=True)
class Lora:
    """A LoRA configuration in the words of neither side."""

    rank: int
    parts: tuple[str, ...]
    layers: tuple[int, ...]
    learning_rate: float


def candidates(n: int, n_layers: int) -> list[Lora]:
    """Different configurations, all of which reach down to the first layer, so that nothing is saved by depth."""
    rng = np.random.default_rng(0)
    chosen = []
    for _ in range(n):
        others = [layer for layer in range(1, n_layers) if rng.random() < 0.7]
        parts = [("q", "v"), ("q", "k", "v"), ("v", "down"), ("q", "v", "down")][rng.integers(4)]
        rate = float(10 ** rng.uniform(-4, -2.5))
        chosen.append(Lora(int(rng.choice([2, 4, 8, 16])), parts, (0, *others), rate))
    return chosen


def tokenizer() -> PreTrainedTokenizerFast:
    """Words w0, w1, ... are tokens of their own."""
    vocabulary = {"[PAD]": 0, "[UNK]": 1, **{f"w{i}": i + 2 for i in range(N_WORDS - 2)}}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]")


def task(n_train: int, n_search: int, low: int, high: int) -> Task:
    """Random words, random labels."""
    rng = np.random.default_rng(0)

    def split(n: int) -> Split:
        lengths = rng.integers(low, high + 1, n)
        texts = tuple(" ".join(f"w{i}" for i in rng.integers(0, N_WORDS - 2, length)) for length in lengths)
        return Split(texts=texts, pairs=None, targets=rng.integers(0, 2, n))

    return Task(
        name="random",
        source="made in code",
        description="Random words.",
        kind="classification",
        label_names=("a", "b"),
        metrics={"accuracy": Direction.MAXIMIZE},
        train=split(n_train),
        search=split(n_search),
        report=split(8),
    )


def build_model(size: str) -> Any:
    """A randomly initialised sequence classifier."""
    shape = {"vocab_size": N_WORDS, "max_position_embeddings": 512, "pad_token_id": 0, "num_labels": 2, **SIZES[size]}
    torch.manual_seed(0)
    config = AutoConfig.for_model(**shape)
    return AutoModelForSequenceClassification.from_config(config, attn_implementation="sdpa")


def time_cohorts(size: str, data: Task, arguments: argparse.Namespace) -> list[dict[str, float]]:
    """Trials per hour for each K, on the resident inner loop."""
    device = torch.device(arguments.device)
    model = build_model(size).to(device, select_precision(arguments.precision, device))
    backbone = wrap_model(model, tokenizer(), name=size)
    runner = TrialRunner(
        backbone, data, TrainingSettings(batch_size=arguments.batch_size, max_tokens=128), memory_cap_bytes=0
    )
    fidelity = Fidelity(train_examples=len(data.train), epochs=1)
    pool = [
        Configuration.make(
            [(Site(layer=l, part=p), ModuleSpec.make("lora", c.rank)) for l in c.layers for p in c.parts],  # noqa: E741
            learning_rate=c.learning_rate,
        )
        for c in candidates(max(arguments.cohorts), backbone.shapes.n_layers)
    ]
    rows = []
    for k in arguments.cohorts:
        jobs = [Job(configuration=configuration, seed=0, fidelity=fidelity) for configuration in pool[:k]]
        try:
            runner.probe(pool[0], n_candidates=k)  # kernels, memory pools
        except OutOfMemoryError as error:
            print(f"{size:<10}{k:>6}  {error}")
            break
        start = time.perf_counter()
        outcomes = runner.run(jobs)
        time_s = time.perf_counter() - start
        failed = [outcome.failure.message for outcome in outcomes if outcome.failure is not None]
        if failed:
            raise SystemExit(f"{len(failed)} of {k} candidates failed: {failed[0]}")
        peak = outcomes[0].measurements[0].costs.get("peak_memory_bytes")
        rows.append({"k": k, "trials_per_hour": 3600 * k / time_s, "peak_memory_bytes": peak})
        show(size, f"K = {k}", rows[-1], rows[0])
    return rows


def time_trainer(size: str, data: Task, arguments: argparse.Namespace) -> dict[str, float]:
    """Trials per hour with transformers' Trainer and peft, one configuration after another, the model loaded once."""
    from datasets import Dataset
    from peft import LoraConfig, TaskType, get_peft_model
    from transformers import Trainer, TrainingArguments

    words = tokenizer()
    train, search = (
        Dataset.from_dict(
            {
                "input_ids": words(list(split.texts), truncation=True, max_length=128)["input_ids"],
                "label": split.targets,
            }
        )
        for split in (data.train, data.search)
    )
    base = build_model(size)
    names = NAMES[base.config.model_type]
    times = []
    # The first trial pays for lazy imports and is not counted.
    for lora in candidates(arguments.trainer_trials + 1, base.config.num_hidden_layers):
        start = time.perf_counter()
        layers, parts = "|".join(map(str, lora.layers)), "|".join(names[part] for part in lora.parts)
        config = LoraConfig(
            task_type=TaskType.SEQ_CLS,
            r=lora.rank,
            lora_alpha=2 * lora.rank,
            target_modules=rf".*\.layers?\.({layers})\..*({parts})",
        )
        model = get_peft_model(base, config)
        with tempfile.TemporaryDirectory() as folder:
            trainer = Trainer(
                model=model,
                args=TrainingArguments(
                    output_dir=folder,
                    per_device_train_batch_size=arguments.batch_size,
                    per_device_eval_batch_size=4 * arguments.batch_size,
                    num_train_epochs=1,
                    learning_rate=lora.learning_rate,
                    warmup_steps=0.06,
                    eval_strategy="epoch",
                    save_strategy="no",
                    report_to=[],
                    disable_tqdm=True,
                    bf16=arguments.device.startswith("cuda"),
                    use_cpu=arguments.device == "cpu",
                ),
                train_dataset=train,
                eval_dataset=search,
                processing_class=words,
            )
            trainer.train()
        times.append(time.perf_counter() - start)
        base = model.unload()
        gc.collect()
    return {"trials_per_hour": 3600 / float(np.mean(times[1:]))}


def show(size: str, label: str, row: dict[str, float], first: dict[str, float]) -> None:
    """One line of the table."""
    memory = "" if row.get("peak_memory_bytes") is None else f"{row['peak_memory_bytes'] / 2**30:8.2f} GiB"
    ratio = row["trials_per_hour"] / first["trials_per_hour"]
    print(f"{size:<10} {label:<22}{row['trials_per_hour']:10.1f} trials/h{ratio:8.2f}x{memory}", flush=True)


def main() -> None:
    """Measure each size and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", nargs="+", choices=list(SIZES), default=["small"])
    parser.add_argument("--cohorts", nargs="+", type=int, default=[1, 2, 4, 8])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--examples", type=int, default=512, help="training examples of a trial (one epoch)")
    parser.add_argument("--lengths", nargs=2, type=int, default=[32, 64], help="shortest and longest text, in tokens")
    parser.add_argument("--trainer-trials", type=int, default=2, help="trials with Trainer + peft; 0 skips them")
    parser.add_argument("--output", type=Path, help="write the results to this JSON file")
    arguments = parser.parse_args()
    data = task(arguments.examples, arguments.examples // 4, *arguments.lengths)
    results: dict[str, dict[str, Any]] = {}
    for size in arguments.size:
        rows = time_cohorts(size, data, arguments)
        results[size] = {"cohorts": rows}
        if arguments.trainer_trials:
            trainer = time_trainer(size, data, arguments)
            results[size]["trainer"] = trainer
            show(size, "Trainer + peft", trainer, rows[0])
            best = max(row["trials_per_hour"] for row in rows)
            print(f"{size:<10} best cohort against Trainer + peft: "
                  f"{best / trainer['trials_per_hour']:.1f}x")  # fmt: skip
    if arguments.output:
        arguments.output.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
