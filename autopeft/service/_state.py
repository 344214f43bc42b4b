"""What all requests share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autopeft.artifacts import ArtifactStore, open_artifacts
from autopeft.exceptions import NotFoundError
from autopeft.orchestrate import worker_id
from autopeft.service._artifacts import publish_report
from autopeft.service._documents import Veil
from autopeft.service._drivers import DriverCommand, Drivers, ProcessDrivers
from autopeft.service._requests import Rules, with_files
from autopeft.service._scheduler import Scheduler
from autopeft.service._settings import ServiceSettings
from autopeft.service._uploads import UploadFolder
from autopeft.store import SqlStore, StoreTotals, Submission, Submissions


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceState:
    """What all requests share.

    Args:
        settings: What the operator decided.
        store: Studies.
        totals: Numbers over all of them.
        submissions: Searches that were handed in.
        uploads: Files that were handed in.
        drivers: The processes that drive searches.
        scheduler: Decides which searches are driven.
        artifacts: Where results are published; None for nowhere.
        veil: Takes this machine's paths out of what is served.
    """

    settings: ServiceSettings
    store: SqlStore
    totals: StoreTotals
    submissions: Submissions
    uploads: UploadFolder
    drivers: Drivers
    scheduler: Scheduler
    artifacts: ArtifactStore | None
    veil: Veil

    def close(self) -> None:
        """End the scheduler and give back connections."""
        self.scheduler.close()
        self.submissions.close()
        self.totals.close()
        self.store.close()

    def rules(self, owner: str) -> Rules:
        """What a caller may submit."""
        return Rules(
            owner=owner,
            allow_code=self.settings.allow_code,
            max_trials=self.settings.max_trials,
            find_upload=lambda reference: self.uploads.find(owner, reference),
            has_study=self._has_study,
        )

    def _has_study(self, name: str) -> bool:
        return any(item.name == name for item in self.store.list_studies())


def open_state(settings: ServiceSettings, drivers: Drivers | None = None) -> ServiceState:
    """Open the database and the folders of a service; nothing runs yet.

    Args:
        settings: What the operator decided.
        drivers: Starts drivers; None for child processes.

    Raises:
        StoreError: If the database cannot be used.
    """
    folder = settings.folder
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    uploads = UploadFolder(
        folder / "uploads", max_bytes=settings.max_upload_bytes, max_stored_bytes=settings.max_stored_bytes
    )
    command = DriverCommand(
        database=settings.database,
        executor=settings.executor,
        data_dir=settings.data_dir,
        artifacts=settings.artifacts,
    )
    artifacts = None if settings.artifacts is None else open_artifacts(settings.artifacts)
    store = SqlStore(settings.database)

    def is_driven(study: str) -> bool:
        try:
            lease = store.driver(study)
        except NotFoundError:
            return False
        return lease is not None and not lease.is_expired

    made = drivers or ProcessDrivers(folder / "searches", command, is_driven=is_driven)
    submissions = Submissions(settings.database)

    def resolve(item: Submission) -> Mapping[str, Any]:
        return with_files(item.settings, lambda reference: uploads.find(item.owner, reference))

    def publish(study: str) -> None:
        if artifacts is not None:
            publish_report(store, artifacts, study)

    scheduler = Scheduler(
        submissions,
        made,
        service=worker_id(),
        max_active=settings.max_active,
        resolve=resolve,
        grace_s=settings.grace_s,
        on_complete=publish,
    )
    return ServiceState(
        settings=settings,
        store=store,
        totals=StoreTotals(settings.database),
        submissions=submissions,
        uploads=uploads,
        drivers=made,
        scheduler=scheduler,
        artifacts=artifacts,
        veil=Veil(folder, store.url),
    )


def find_submission(state: ServiceState, study: str) -> Submission | None:
    """The submission of a study; None if it was begun elsewhere."""
    try:
        return state.submissions.load(study)
    except NotFoundError:
        return None
