"""Commands that write files: report."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from autopeft.cli._options import ArtifactsOption, DatabaseOption, StudyArgument, find_study
from autopeft.cli._output import json_text, tell, write
from autopeft.cli._publish import PublishOption, publish_result, require_place
from autopeft.cli._source import CaFileOption, ServerOption, TokenFileOption, open_studies
from autopeft.exceptions import MachineError, UnknownNameError, UsageError

_SUFFIXES = {".html": "html", ".htm": "html", ".md": "md", ".markdown": "md", ".json": "json"}


def report(
    study: StudyArgument = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="File to write; stdout if left out.", show_default=False),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            "-f",
            metavar="html|md|json",
            show_default=False,
            help="One self-contained page, Markdown, or JSON with a schema version. "
            "Default: by the file's ending, Markdown on stdout.",
        ),
    ] = None,
    publish: PublishOption = False,
    artifacts: ArtifactsOption = None,
    db: DatabaseOption = None,
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    ca_file: CaFileOption = None,
) -> None:
    """Write a report: result, front, configuration by layer, baselines, trials, failures, reproducibility."""
    from autopeft.export import render_report, report_document

    place = require_place(artifacts) if publish else None
    if place is not None and (output is None or str(output) == "-"):
        raise UsageError("--publish stores a file; name it with -o, for example -o report.html.")
    chosen = format or _format_of(output)
    if chosen not in _SUFFIXES.values():
        raise UnknownNameError("report format", chosen, set(_SUFFIXES.values()))
    found = find_study(open_studies(db, server, token_file, ca_file), study)
    text = json_text(report_document(found)) if chosen == "json" else render_report(found, chosen)
    if output is None or str(output) == "-":
        write(text)
        return
    target = output.expanduser()
    write_file(target, text)
    tell(f"Wrote the report of study {found.spec.name} ({len(text.encode()) / 1024:.0f} KiB).")
    if place is not None:
        publish_result(place, found.spec.name, "reports", target)
    write(f"{target}\n")


def write_file(path: Path, text: str) -> None:
    """Write a file wholly or not at all.

    Raises:
        MachineError: If it cannot be written.
    """
    temporary: Path | None = None
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            temporary = Path(file.name)
            file.write(text)
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        temporary.replace(path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise MachineError(f"cannot write {path}: {error.strerror or error}; give another file with -o.") from error


def _format_of(output: Path | None) -> str:
    if output is None or str(output) == "-":
        return "md"
    suffix = output.suffix.lower()
    if suffix not in _SUFFIXES:
        raise UnknownNameError("report file ending", output.suffix, _SUFFIXES, "Or say --format html, md or json.")
    return _SUFFIXES[suffix]
