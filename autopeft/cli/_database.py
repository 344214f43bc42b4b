"""Commands about the database itself: db upgrade."""

from __future__ import annotations

from autopeft.cli._environment import database_url
from autopeft.cli._options import DatabaseOption, FormatOption
from autopeft.cli._output import OutputFormat, emit


def upgrade(db: DatabaseOption = None, format: FormatOption = OutputFormat.HUMAN) -> None:
    """Bring the database's schema to this version's; nothing stored is lost."""
    from rich.text import Text

    from autopeft.store import mask_url
    from autopeft.store import upgrade as upgrade_schema

    url = database_url(db)
    before, after = upgrade_schema(url)
    shown = mask_url(url)

    def words() -> Text:
        if before == after:
            return Text(f"The database {shown} is up to date (schema {after}).")
        return Text(f"Upgraded the database {shown} from schema {before or 'none'} to {after}.")

    emit(format, lambda: {"database": shown, "before": before, "after": after}, words)
