"""The whole cluster of docker-compose.yml, its own commands in its own confinement, from a request to a result."""

from __future__ import annotations

import json
import time

import pytest

from tests.cluster.conftest import Cluster
from tests.cluster.containers import Container

pytestmark = [pytest.mark.slow, pytest.mark.postgres]

_SEARCH_S = 150.0


def reviews() -> bytes:
    """A task that anybody can tell, so that a result says something."""
    words = {"good": ("fine", "lovely", "great", "superb"), "bad": ("awful", "poor", "dull", "dreadful")}
    rows = [
        f"a {word} film number {index},{label}" for index in range(30) for label, many in words.items() for word in many
    ]
    return ("text,label\n" + "\n".join(rows) + "\n").encode()


def search(cluster: Cluster) -> None:
    """Search an uploaded file: submitted over HTTP, trained by the workers."""
    api = cluster.url("api")
    code, uploaded = cluster.ask("POST", f"{api}/v1/uploads?name=reviews.csv", reviews())
    assert code == 201, uploaded
    settings = {
        "task": uploaded["reference"],
        "budget": "1%",
        "study": "through-the-cluster",
        "trials": 4,
        "train_examples": 64,
        "epochs": 1,
        "seeds": 1,
        "confirm_top": 1,
        "baselines": False,
        "max_tokens": 16,
    }
    code, submitted = cluster.ask("POST", f"{api}/v1/searches", {"settings": settings})
    assert code == 202, submitted
    deadline = time.monotonic() + _SEARCH_S
    while True:
        code, state = cluster.ask("GET", f"{api}/v1/searches/through-the-cluster")
        assert code == 200, state
        if state["finished_at"] is not None:
            break
        _, log = cluster.ask("GET", f"{api}/v1/searches/through-the-cluster/log")
        assert time.monotonic() < deadline, f"{state}\n{log}\n{cluster.logs()}"
        time.sleep(1)
    _, log = cluster.ask("GET", f"{api}/v1/searches/through-the-cluster/log")
    assert state["state"] == "COMPLETE", f"{state}\n{log}\n{cluster.logs()}"


def check_a_search_ends_with_a_front(cluster: Cluster) -> None:
    code, front = cluster.ask("GET", f"{cluster.url('api')}/v1/studies/through-the-cluster/front")
    assert code == 200
    assert front["trials"]
    code, trials = cluster.ask("GET", f"{cluster.url('api')}/v1/studies/through-the-cluster/trials")
    assert code == 200
    states = [item["state"] for item in trials["trials"]]
    assert states.count("COMPLETE") == len(states) == 5, "four search trials and one confirmation"


def check_the_trials_were_trained_on_the_worker_nodes(cluster: Cluster) -> None:
    _, trials = cluster.ask("GET", f"{cluster.url('api')}/v1/studies/through-the-cluster/trials")
    hosts = {item["worker"].split(":")[0] for item in trials["trials"]}
    assert hosts <= {"worker-1", "worker-2"}
    assert hosts, "and on both, if neither was much slower to load"


def check_the_data_reached_the_workers_as_an_artifact(cluster: Cluster) -> None:
    """Workers do not see the API's folder: what they trained on came by its hash."""
    inputs = cluster.folder / "volumes" / "worker-home" / "cache" / "inputs"
    assert [item.read_bytes() for item in inputs.rglob("*.csv")] == [reviews()]


def check_without_a_token_nobody_is_let_in(cluster: Cluster) -> None:
    api = cluster.url("api")
    assert cluster.ask("GET", f"{api}/v1/searches", token="")[0] == 401
    assert cluster.ask("GET", f"{api}/v1/searches", token="x" * 64)[0] == 401
    assert cluster.ask("GET", f"{api}/readyz", token="")[0] == 200


def check_ray_lets_nobody_in_without_its_token(cluster: Cluster) -> None:
    (head,) = cluster.containers["ray-head"]
    check = head.service["healthcheck"]["test"][1:]
    assert head.run(check).returncode == 0
    assert head.run(["env", "-u", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_TOKEN=wrong", *check]).returncode != 0


def check_the_dashboard_answers_and_its_role_cannot_write(cluster: Cluster) -> None:
    code, text = cluster.ask("GET", f"{cluster.url('dashboard')}/_stcore/health", token="")
    assert (code, text) == (200, "ok")
    (dashboard,) = cluster.containers["dashboard"]
    tried = dashboard.run(
        ["sh", "-c", 'autopeft search --task stdlib/topics --budget 1% --trials 1 --db "$AUTOPEFT_DB"']
    )
    assert tried.returncode == 4, tried.stderr
    assert "permission" in tried.stderr or "read-only" in tried.stderr
    listed = dashboard.run(["autopeft", "status", "--all", "--format", "json"])
    assert "through-the-cluster" in listed.stdout, listed.stderr


def check_nothing_but_api_and_dashboard_is_reached_from_outside(cluster: Cluster) -> None:
    for name, port in (("db", 5432), ("ray-head", 6379), ("ray-head", 10001)):
        with pytest.raises(AssertionError, match=r"Network is unreachable|No route to host|timed out"):
            cluster.ask("GET", f"http://{cluster.nets.hosts[name]}:{port}/", token="")


def check_every_container_is_as_confined_as_its_service_says(cluster: Cluster) -> None:
    for name in ("db", "ray-head", "worker", "api", "dashboard"):
        _check_confinement(cluster.containers[name][0])


def _check_confinement(container: Container) -> None:
    code = (
        "import json, os; s = dict(line.split(':', 1) for line in open('/proc/self/status')); "
        "print(json.dumps([os.getuid(), s['CapEff'].strip(), s['CapBnd'].strip(), s['NoNewPrivs'].strip(), "
        "[p for p in ('/', '/etc', '/usr', '/home', '/var/lib') if os.access(p, os.W_OK)]]))"
    )
    done = container.run(["python3", "-c", code])
    assert done.returncode == 0, done.stderr
    user, effective, bounding, no_new, writable = json.loads(done.stdout)
    assert user == int(container.service["user"].split(":")[0]) > 0
    assert int(effective, 16) == int(bounding, 16) == 0
    assert no_new == "1"
    assert writable == []


def check_no_secret_is_in_an_environment_a_command_line_or_a_log(cluster: Cluster) -> None:
    values = {name: cluster.secret(name) for name in cluster.secrets}
    for items in cluster.containers.values():
        for container in items:
            assert not any(value in container.log for value in values.values()), container.name
            if container.service["restart"] == "no":
                continue
            done = container.run(
                ["sh", "-c", "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'"]
            )
            for name, value in values.items():
                assert value not in done.stdout, f"{name} in {container.name}"
    _, log = cluster.ask("GET", f"{cluster.url('api')}/v1/searches/through-the-cluster/log")
    assert not any(value in log["text"] for value in values.values())


def check_a_worker_that_is_stopped_gives_its_trial_back(cluster: Cluster) -> None:
    """Long before its lease of 60 s would have expired; the other worker goes on."""
    api = cluster.url("api")
    settings = {
        "task": "stdlib/topics",
        "study": "long",
        "trials": 2,
        "epochs": 50,
        "baselines": False,
        "confirm_top": 0,
    }
    code, submitted = cluster.ask("POST", f"{api}/v1/searches", {"settings": settings})
    assert code == 202, submitted
    stopped = cluster.containers["worker"][0]

    def held() -> list[str]:
        code, trials = cluster.ask("GET", f"{api}/v1/studies/long/trials")
        running = [item for item in trials["trials"] if item["state"] == "RUNNING"] if code == 200 else []
        return [item["worker"].split(":")[0] for item in running]

    deadline = time.monotonic() + 60
    while stopped.name not in held():
        assert time.monotonic() < deadline, cluster.logs()
        time.sleep(1)
    grace_s = int(stopped.service["stop_grace_period"].removesuffix("s"))
    assert stopped.stop(grace_s=grace_s) < grace_s, stopped.log[-2000:]
    deadline = time.monotonic() + 15
    while stopped.name in held():
        assert time.monotonic() < deadline, stopped.log[-2000:]
        time.sleep(0.5)
    code, _ = cluster.ask("POST", f"{api}/v1/searches/long/stop")
    assert code == 200


def check_a_service_ends_within_its_grace(cluster: Cluster) -> None:
    """The last: it takes the cluster down."""
    for name in ("dashboard", "api", "worker", "ray-head", "db"):
        for container in cluster.containers[name]:
            grace_s = int(container.service["stop_grace_period"].removesuffix("s"))
            assert container.stop(grace_s=grace_s) < grace_s, (
                f"{container.name} had to be killed\n{container.log[-2000:]}"
            )


#: In this order: the first searches what others look at, and the last takes the cluster down.
CHECKS = (
    check_a_search_ends_with_a_front,
    check_the_trials_were_trained_on_the_worker_nodes,
    check_the_data_reached_the_workers_as_an_artifact,
    check_without_a_token_nobody_is_let_in,
    check_ray_lets_nobody_in_without_its_token,
    check_the_dashboard_answers_and_its_role_cannot_write,
    check_nothing_but_api_and_dashboard_is_reached_from_outside,
    check_every_container_is_as_confined_as_its_service_says,
    check_no_secret_is_in_an_environment_a_command_line_or_a_log,
    check_a_worker_that_is_stopped_gives_its_trial_back,
    check_a_service_ends_within_its_grace,
)


def test_the_cluster_of_the_compose_file(cluster: Cluster, subtests: pytest.Subtests) -> None:
    """One test, because it is one cluster: side by side, each process would start its own."""
    search(cluster)
    for check in CHECKS:
        with subtests.test(check.__name__.removeprefix("check_").replace("_", " ")):
            check(cluster)
