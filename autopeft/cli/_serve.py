"""``autopeft serve``: searches over HTTP."""

from __future__ import annotations

import os
import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from autopeft.cli._environment import data_folder, database_url, home_folder
from autopeft.cli._log import LogFormatOption, records_shown
from autopeft.cli._options import ArtifactsOption, DatabaseOption
from autopeft.cli._output import tell
from autopeft.exceptions import MachineError, UsageError

_ACCESS = "Who may ask"
_LIMITS = "Limits"
_SEARCHES = "How searches are driven"
_MIB = 2**20

TokenFileOption = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        metavar="FILE",
        rich_help_panel=_ACCESS,
        show_default=False,
        help="File with the token, or lines of NAME TOKEN [read|write|admin]. Default: the file that "
        "AUTOPEFT_API_TOKEN_FILE names, else the token in AUTOPEFT_API_TOKEN.",
    ),
]
NoTokenOption = Annotated[
    bool, typer.Option("--no-token", rich_help_panel=_ACCESS, help="Ask for no token; on loopback alone.")
]
AllowedHostOption = Annotated[
    list[str] | None,
    typer.Option(
        "--allowed-host",
        metavar="NAME",
        rich_help_panel=_ACCESS,
        show_default=False,
        help="Name under which this machine may be asked; may be given several times. Default: localhost on loopback, "
        "any elsewhere.",
    ),
]
TlsCertOption = Annotated[
    Path | None,
    typer.Option("--tls-cert", metavar="FILE", rich_help_panel=_ACCESS, show_default=False, help="Certificate chain."),
]
TlsKeyOption = Annotated[
    Path | None,
    typer.Option("--tls-key", metavar="FILE", rich_help_panel=_ACCESS, show_default=False, help="Its private key."),
]
AllowCodeOption = Annotated[
    bool,
    typer.Option(
        "--allow-code",
        rich_help_panel=_ACCESS,
        help="Let searches name Python rewards, pickled weights and code that comes with a backbone: whoever has a "
        "token can then run anything on this machine.",
    ),
]
ExecutorOption = Annotated[
    str,
    typer.Option(
        "--executor",
        metavar="WORDS",
        rich_help_panel=_SEARCHES,
        help="Where trials run: local, workers or ray; further words of `autopeft search` may follow: "
        "'ray --address auto --trial-timeout 10m'.",
    ),
]
MaxActiveOption = Annotated[
    int, typer.Option("--max-active", min=1, rich_help_panel=_SEARCHES, help="Searches driven at once.")
]
FolderOption = Annotated[
    Path | None,
    typer.Option(
        "--folder",
        metavar="DIR",
        rich_help_panel=_SEARCHES,
        show_default=False,
        help="Folder of uploads, settings and logs. Default: service in $AUTOPEFT_HOME.",
    ),
]
DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        envvar="AUTOPEFT_DATA_DIR",
        metavar="DIR",
        rich_help_panel=_SEARCHES,
        show_default=False,
        help="Folder with the named tasks' files in their official layout. Default: the hub.",
    ),
]


def serve(
    db: DatabaseOption = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8500,
    token_file: TokenFileOption = None,
    no_token: NoTokenOption = False,
    allowed_host: AllowedHostOption = None,
    tls_cert: TlsCertOption = None,
    tls_key: TlsKeyOption = None,
    allow_code: AllowCodeOption = False,
    executor: ExecutorOption = "local",
    max_active: MaxActiveOption = 1,
    folder: FolderOption = None,
    data_dir: DataOption = None,
    artifacts: ArtifactsOption = None,
    max_upload_mib: Annotated[
        int, typer.Option("--max-upload-mib", min=1, rich_help_panel=_LIMITS, help="Largest uploaded file.")
    ] = 200,
    max_stored_mib: Annotated[
        int, typer.Option("--max-stored-mib", min=1, rich_help_panel=_LIMITS, help="All uploads of one token.")
    ] = 2048,
    max_trials: Annotated[
        int, typer.Option("--max-trials", min=1, rich_help_panel=_LIMITS, help="Most trials of a search.")
    ] = 10_000,
    max_queued: Annotated[
        int, typer.Option("--max-queued", min=1, rich_help_panel=_LIMITS, help="Most waiting searches of one token.")
    ] = 100,
    rate: Annotated[
        float, typer.Option("--rate", min=0.01, rich_help_panel=_LIMITS, help="Requests per second and token.")
    ] = 20.0,
    log_format: LogFormatOption = None,
) -> None:
    """Serve searches over HTTP: submit, follow, stop and resume them, read fronts and reports. Ends with Ctrl-C.

    Submitted searches wait in the database and are driven by child processes, fairly among the tokens; a restart
    loses none of them. `autopeft search --server URL` is the client; GET /openapi.json describes the API.
    """
    if find_spec("fastapi") is None or find_spec("uvicorn") is None:
        raise MachineError("the service needs FastAPI and uvicorn; install them: pip install 'autopeft[serve]'.")
    from autopeft.service import ServiceSettings, find_tokens
    from autopeft.service import serve as run

    tokens = None if no_token else find_tokens(token_file, os.environ)
    if tokens is None and not no_token:
        raise UsageError(
            "no token: set AUTOPEFT_API_TOKEN_FILE or give --token-file FILE (to make one: openssl rand -hex 32), "
            "or say --no-token, which goes on loopback alone."
        )
    settings = ServiceSettings(
        database=database_url(db),
        folder=(folder or home_folder() / "service").expanduser(),
        tokens=tokens,
        host=host,
        port=port,
        max_active=max_active,
        executor=_executor_words(executor),
        data_dir=data_folder(data_dir),
        artifacts=artifacts,
        allow_code=allow_code,
        max_upload_bytes=max_upload_mib * _MIB,
        max_stored_bytes=max_stored_mib * _MIB,
        max_trials=max_trials,
        max_queued=max_queued,
        rate=rate,
        burst=max(int(rate * 3), 1),
        allowed_hosts=tuple(allowed_host or ()),
        tls_cert=tls_cert,
        tls_key=tls_key,
    )

    def on_ready() -> None:
        _tell(settings.host, settings.port, has_tls=tls_cert is not None, is_local=settings.is_local, is_open=no_token)

    with records_shown("autopeft.service", "uvicorn"):
        run(settings, on_ready=on_ready)


def _executor_words(text: str) -> tuple[str, ...]:
    from autopeft.orchestrate import EXECUTORS

    words = shlex.split(text)
    if not words:
        raise UsageError("--executor must be local, workers or ray, but got nothing.")
    if words[0] not in EXECUTORS:
        raise UsageError(f"--executor must be {', '.join(EXECUTORS)}, but got {words[0]!r}.")
    _check_words(words)
    return () if words == ["local"] else ("--executor", *words)


def _check_words(words: list[str]) -> None:
    """Refuse what `autopeft search` would refuse, before every search that is submitted fails by it.

    Raises:
        UsageError: Says what is wrong.
    """
    from autopeft.cli._search import search
    from autopeft.cli._search_flags import SEARCH_FLAGS
    from autopeft.orchestrate import SearchSettings

    alone = typer.Typer()
    alone.command()(search)
    command = typer.main.get_command(alone)
    try:
        given, rest, _ = command.make_parser(typer.Context(command)).parse_args(words[1:])
        if rest:
            raise UsageError(f"unexpected {rest[0]!r}.")
        flags = {name: value for name, value in given.items() if name in SEARCH_FLAGS}
        SearchSettings.make({"task": "any", "executor": words[0]}, flags)
    except (typer.TyperException, UsageError) as error:
        raise UsageError(f"--executor {shlex.quote(shlex.join(words))}: {error}") from error


def _tell(host: str, port: int, *, has_tls: bool, is_local: bool, is_open: bool) -> None:
    shown = f"[{host}]" if ":" in host else host
    tell(f"Serving {'https' if has_tls else 'http'}://{shown}:{port}; Ctrl-C ends it.")
    if is_open:
        tell("Warning: no token is asked for; everybody on this machine can submit and stop searches.")
    if not is_local and not has_tls:
        tell(
            f"Warning: tokens travel to {shown} unencrypted. Give --tls-cert and --tls-key, or put a proxy with TLS "
            "before it."
        )
