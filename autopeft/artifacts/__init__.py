"""Files that machines share: a folder, or an object store, behind one contract. No torch."""

from autopeft.artifacts._address import ArtifactAddress, parse_address
from autopeft.artifacts._bundle import Bundle, fetch_bundle, put_bundle
from autopeft.artifacts._names import check_name, safe_part, study_folder
from autopeft.artifacts._publish import publish
from autopeft.artifacts._store import Artifact, ArtifactStore, open_artifacts

__all__ = [
    "Artifact",
    "ArtifactAddress",
    "ArtifactStore",
    "Bundle",
    "check_name",
    "fetch_bundle",
    "open_artifacts",
    "parse_address",
    "publish",
    "put_bundle",
    "safe_part",
    "study_folder",
]
