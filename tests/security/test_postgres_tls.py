"""The database over TLS, as docs/security.md says: encrypted, and only with the server whose certificate is trusted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import trustme
from sqlalchemy import text

from autopeft.exceptions import StoreError
from autopeft.store import SqlStore
from tests.store.builders import make_spec
from tests.store.conftest import Cluster, cluster, execute  # noqa: F401

pytestmark = pytest.mark.postgres


@pytest.fixture
def authority(cluster: Cluster, tmp_path: Path) -> Iterator[Path]:  # noqa: F811
    """Make the server speak TLS; gives the certificate of the authority that signed its own."""
    made = trustme.CA()
    issued = made.issue_cert("127.0.0.1")
    certificate, key = cluster.folder / "server.crt", cluster.folder / "server.key"
    certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    key.chmod(0o600)
    if cluster.user:
        for path in (certificate, key):
            os.chown(path, cluster.user["user"], cluster.user["group"])  # type: ignore[arg-type]
    settings = {"ssl_cert_file": certificate, "ssl_key_file": key, "ssl": "on"}
    set_all = [f"ALTER SYSTEM SET {name} = '{value}'" for name, value in settings.items()]
    execute(cluster.url(), *set_all, "SELECT pg_reload_conf()", "CREATE DATABASE secure")
    made.cert_pem.write_to_path(tmp_path / "ca.pem")
    yield tmp_path / "ca.pem"
    reset = [f"ALTER SYSTEM RESET {name}" for name in settings]
    execute(cluster.url(), "DROP DATABASE secure WITH (FORCE)", *reset, "SELECT pg_reload_conf()")


def url_of(cluster: Cluster, ca: Path, host: str = "127.0.0.1") -> str:  # noqa: F811
    base = cluster.url("secure").replace("@127.0.0.1:", f"@{host}:")
    return f"{base}?sslmode=verify-full&sslrootcert={quote(str(ca), safe='')}"


def test_a_store_over_tls(cluster: Cluster, authority: Path) -> None:  # noqa: F811
    """Oracle: what the server says of this very connection."""
    with SqlStore(url_of(cluster, authority)) as store:
        store.create_study(make_spec("s"))
        assert store.load_study("s").spec.name == "s"
        with store._engine.connect() as connection:
            statement = text("SELECT ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
            is_encrypted, version = connection.execute(statement).one()
    assert is_encrypted is True
    assert version in ("TLSv1.2", "TLSv1.3")


def test_another_server_is_refused(cluster: Cluster, authority: Path, tmp_path: Path) -> None:  # noqa: F811
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    with pytest.raises(StoreError, match="certificate verify failed"):
        SqlStore(url_of(cluster, tmp_path / "other.pem"))
    with pytest.raises(StoreError, match=r"localhost|host name"):
        # The certificate is of the address, not of this name.
        SqlStore(url_of(cluster, authority, host="localhost"))
