"""What can be taken away: files and code, as text."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence

import pandas as pd
import yaml

from autopeft.configuration import Configuration
from autopeft.export import format_count, format_score
from autopeft.study import StudySpec

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}


def configuration_json(configuration: Configuration) -> str:
    """A configuration as a JSON file, as `Configuration.from_dict` reads it."""
    return json.dumps(configuration.to_dict(), indent=2) + "\n"


def configuration_yaml(configuration: Configuration) -> str:
    """A configuration as a YAML file with the same content."""
    return yaml.safe_dump(configuration.to_dict(), sort_keys=False)


def export_command(study_name: str, number: int, form: str | None = None, *, publish: bool = False) -> str:
    """The command that writes a trial as an adapter; the database is named by ``--db`` or ``AUTOPEFT_DB``.

    Args:
        study_name: Study.
        number: Trial.
        form: How it is written; None for the first form that is exact.
        publish: Whether it is stored where machines share files as well.
    """
    words = ["autopeft", "export", study_name, str(number), *(["--as", form] if form else []), "-o", "adapter"]
    return shlex.join([*words, *(["--publish"] if publish else [])])


def code_snippet(spec: StudySpec, library: str) -> str:
    """Python that loads what the command wrote and classifies a text.

    Args:
        spec: The study's settings.
        library: ``"peft"`` for an adapter on its base model, ``"transformers"`` for merged weights.
    """
    labels = spec.task.get("label_names")
    n_labels = len(labels) if isinstance(labels, Sequence) and not isinstance(labels, str) else 1
    loading = {
        "transformers": [
            "from transformers import AutoModelForSequenceClassification, AutoTokenizer",
            "",
            'model = AutoModelForSequenceClassification.from_pretrained("adapter").eval()',
        ],
        "peft": [
            "from peft import PeftConfig, PeftModel",
            "from transformers import AutoModelForSequenceClassification, AutoTokenizer",
            "",
            'base = PeftConfig.from_pretrained("adapter").base_model_name_or_path',
            f"base_model = AutoModelForSequenceClassification.from_pretrained(base, num_labels={n_labels})",
            'model = PeftModel.from_pretrained(base_model, "adapter").eval()',
        ],
    }[library]
    lines = [
        "import torch",
        *loading,
        'tokenizer = AutoTokenizer.from_pretrained("adapter")',
        'inputs = tokenizer("This is a text.", truncation=True, return_tensors="pt")',
        "with torch.no_grad():",
        "    print(model(**inputs).logits)",
    ]
    return "\n".join(lines) + "\n"


def latex_table(rows: pd.DataFrame, spec: StudySpec, words: Mapping[int, str]) -> str:
    """Trials as a LaTeX table (booktabs), cheapest first.

    Args:
        rows: Trials with a column per objective.
        spec: Names the objectives.
        words: Configurations in words, by number.
    """
    names = [item.name for item in spec.objectives if item.name != "trainable_parameters"]
    head = " & ".join(["Trial", "Configuration", "Parameters", *(latex(name.replace("_", " ")) for name in names)])
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{tabular}{rl" + "r" * (1 + len(names)) + "}",
        r"\toprule",
        head + r" \\",
        r"\midrule",
    ]
    for row in rows.sort_values(["trainable_parameters", "number"]).to_dict("records"):
        number = int(row["number"])
        label = row.get("label")
        text = label if isinstance(label, str) else words.get(number, "")
        scores = ["--" if pd.isna(row[name]) else format_score(float(row[name])) for name in names]
        cells = [str(number), latex(text), format_count(row["trainable_parameters"]), *scores]
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def latex(text: str) -> str:
    """Text that LaTeX sets letter by letter."""
    return re.sub(r"\s+", " ", "".join(_LATEX.get(char, char) for char in text))


def counted(n: int, noun: str) -> str:
    """A number with its noun: ``"1 trial"``, ``"3 trials"``."""
    return f"{n:,} {noun}" + ("" if n == 1 else "s")


def file_name(study_name: str, rest: str) -> str:
    """A name for a downloaded file that no file system minds."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", study_name).strip(".-")[:80] or "study"
    return f"{safe}-{rest}"
