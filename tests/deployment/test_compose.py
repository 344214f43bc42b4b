"""What docker-compose.yml promises, read from the file; oracle: the compose specification's schema, and the rules."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from autopeft.cli._cluster import SECRETS, _settings
from autopeft.cli._workers import workers_module
from tests.deployment.compose import BASE, GPU, ROOT, MissingVariableError, merged, read

VARIABLES = {"AUTOPEFT_UID": "10001", "AUTOPEFT_GID": "10001", "AUTOPEFT_SECRETS": "./secrets"}
SERVICES = ("db", "migrate", "ray-head", "worker", "api", "dashboard")
ONE_SHOTS = {"migrate"}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return read(BASE, VARIABLES)


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = compose["services"]
    return found


@pytest.mark.parametrize("path", [BASE, GPU])
def test_the_files_follow_the_compose_specification(path: Path) -> None:
    schema = json.loads(files("check_jsonschema").joinpath("builtin_schemas/vendor/compose-spec.json").read_text())
    assert "services" in schema["properties"]
    jsonschema.validate(read(path, VARIABLES), schema)
    assert "version" not in read(path, VARIABLES), "the key is obsolete"


def test_the_cluster_has_the_services_that_were_asked_for(services: dict[str, Any]) -> None:
    assert set(services) == set(SERVICES)


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_confined(services: dict[str, Any], name: str) -> None:
    service = services[name]
    user, group = service["user"].split(":")
    assert int(user) > 0
    assert int(group) > 0
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert not service.get("privileged", False)
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert any(item.startswith("/tmp:") for item in service["tmpfs"])
    assert service["pids_limit"] > 0
    assert service["logging"]["options"] == {"max-size": "10m", "max-file": "3"}
    for key in ("network_mode", "pid", "ipc", "userns_mode", "container_name", "devices"):
        assert key not in service
    assert not any("docker.sock" in str(item) for item in service.get("volumes", ()))


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_says_when_it_is_healthy_and_ends_in_time(services: dict[str, Any], name: str) -> None:
    service = services[name]
    if name in ONE_SHOTS:
        assert service["restart"] == "no"
        waiting = [item for item in services.values() if name in item.get("depends_on", {})]
        assert waiting, "others wait for its end"
        assert all(item["depends_on"][name]["condition"] == "service_completed_successfully" for item in waiting)
        return
    assert service["restart"] == "unless-stopped"
    check = service["healthcheck"]
    assert check["test"][0] == "CMD"
    assert not any(word in " ".join(check["test"]) for word in ("pgrep", "exit 0", "|| true", "ps "))
    assert check["start_period"]
    assert check["retries"]
    assert re.fullmatch(r"\d+s", service["stop_grace_period"])


def test_the_grace_of_a_node_is_longer_than_its_workers_take_to_give_their_trials_back(
    services: dict[str, Any],
) -> None:
    own_s = workers_module("settings").WorkerSettings(cache_dir=Path("/x")).grace_s
    drain_s = float(services["worker"]["environment"]["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"])
    assert own_s < drain_s < int(services["worker"]["stop_grace_period"].removesuffix("s"))


def test_ports_are_published_on_loopback_and_by_api_and_dashboard_alone(services: dict[str, Any]) -> None:
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert set(published) == {"api", "dashboard"}
    for ports in published.values():
        for port in ports:
            assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port)
    assert all("expose" not in service for service in services.values())


def test_only_what_is_published_is_on_a_network_that_leads_out(compose: dict[str, Any]) -> None:
    assert compose["networks"]["backend"] == {"internal": True}
    for name, service in compose["services"].items():
        assert ("edge" in service["networks"]) == ("ports" in service), name
        assert "backend" in service["networks"]


def test_images_are_pinned(services: dict[str, Any]) -> None:
    for service in services.values():
        if "build" not in service:
            assert re.search(r":\d+\.\d+", service["image"]), service["image"]
            assert "latest" not in service["image"]
    assert re.match(r"postgres:18\.", services["db"]["image"])
    assert "pgdata:/var/lib/postgresql" in services["db"]["volumes"]


def test_no_secret_is_written_in_clear(compose: dict[str, Any]) -> None:
    text = "\n".join(path.read_text() for path in (BASE, GPU, ROOT / "Dockerfile"))
    assert not re.search(r"://[^/\s:@]+:[^@/\s]+@", text), "a URL with a password"
    for service in compose["services"].values():
        for name, value in service.get("environment", {}).items():
            if re.search(r"(?i)passw|token|secret|key", name):
                assert str(value).startswith("/run/secrets/") or (name, value) in (
                    ("RAY_AUTH_MODE", "token"),
                    ("TOKENIZERS_PARALLELISM", "false"),
                ), name
        assert not any(re.search(r"(?i)(password|token)=(?!/run/secrets/)", word) for word in service["command"])
    assert set(compose["secrets"]) == set(SECRETS)
    assert all(set(item) == {"file"} for item in compose["secrets"].values())


def test_secrets_reach_those_who_need_them_alone(services: dict[str, Any]) -> None:
    """And every file that is named below /run/secrets is there."""
    wanted = {
        "db": {"db_admin_password"},
        "migrate": {"db_admin_password", "db_password", "db_reader_password"},
        "ray-head": {"ray_token"},
        "worker": {"ray_token", "db_password"},
        "api": {"api_token", "ray_token", "db_password"},
        "dashboard": {"db_reader_password"},
    }
    assert {name: set(service["secrets"]) for name, service in services.items()} == wanted
    for name, service in services.items():
        words = json.dumps([service["command"], service.get("environment", {})])
        assert set(re.findall(r"/run/secrets/(\w+)", words)) <= wanted[name]


def test_ray_asks_for_a_token_wherever_it_runs(services: dict[str, Any]) -> None:
    for name in ("ray-head", "worker", "api"):
        environment = services[name]["environment"]
        assert environment["RAY_AUTH_MODE"] == "token"
        assert environment["RAY_AUTH_TOKEN_PATH"] == "/run/secrets/ray_token"
    for name in ("ray-head", "worker"):
        assert "--block" in services[name]["command"], "the container would end at once"
        assert services[name]["shm_size"]
    assert "--num-cpus=0" in services["ray-head"]["command"], "nothing is trained on the head"
    assert "--include-dashboard=false" in services["ray-head"]["command"]


def test_the_dashboard_cannot_write(services: dict[str, Any]) -> None:
    user = re.match(r"postgresql://(\w+)@", services["dashboard"]["environment"]["AUTOPEFT_DB"])
    assert user is not None
    grants = [word for word in services["migrate"]["command"] if word.startswith("--grant-read=")]
    assert grants == [f"--grant-read={user[1]}=/run/secrets/db_reader_password"]
    writer = re.match(r"postgresql://(\w+)@", services["api"]["environment"]["AUTOPEFT_DB"])
    assert writer is not None
    assert f"--grant-write={writer[1]}=/run/secrets/db_password" in services["migrate"]["command"]


def test_volumes_are_there_and_mounted_where_the_image_has_a_folder_for_them(compose: dict[str, Any]) -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    named = set()
    for name, service in compose["services"].items():
        for item in service.get("volumes", ()):
            volume, path = item.split(":")
            named.add(volume)
            assert name == "db" or path in dockerfile, path
    assert named == set(compose["volumes"])


def test_without_secrets_there_is_one_clear_message() -> None:
    with pytest.raises(MissingVariableError, match=r"run `autopeft cluster init` in this folder first"):
        read(BASE, {})
    for name in VARIABLES:
        with pytest.raises(MissingVariableError, match=f"{name}.*autopeft cluster init"):
            read(BASE, {key: value for key, value in VARIABLES.items() if key != name})


def test_init_sets_what_the_file_asks_for(tmp_path: Path) -> None:
    assert set(_settings(tmp_path)) == set(VARIABLES) == set(re.findall(r"\$\{(\w+):\?", BASE.read_text()))


def test_the_overlay_adds_gpus_and_nothing_else(compose: dict[str, Any]) -> None:
    over = read(GPU, VARIABLES)
    whole = merged(compose, over)["services"]
    assert set(whole) == set(SERVICES)
    for name in ("worker", "api"):
        (device,) = whole[name]["deploy"]["resources"]["reservations"]["devices"]
        assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
    assert "deploy" not in whole["db"]
    assert {item["image"] for name, item in whole.items() if name != "db"} == {"autopeft:local-cuda"}
    assert {item["build"]["args"]["VARIANT"] for name, item in whole.items() if name != "db"} == {"cuda"}
    for name, service in over["services"].items():
        assert set(service) <= {"image", "build", "environment", "deploy"}, name


def test_without_the_overlay_everything_runs_on_the_cpu(services: dict[str, Any]) -> None:
    assert services["worker"]["build"]["args"]["VARIANT"] == "cpu"
    assert all("deploy" not in service for service in services.values())


def test_secrets_and_settings_are_never_committed() -> None:
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert {".env", "secrets/"} <= set(ignored)
    assert yaml.safe_load(BASE.read_text())["name"] == "autopeft"
