"""The examples for Kubernetes and for machines reached by ssh; oracle: Kubernetes' and Ray's own schemas."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from autopeft.cli._app import run

ROOT = Path(__file__).parents[2]
KUBERAY, RAY_UP = ROOT / "docs" / "cluster" / "kuberay.yaml", ROOT / "docs" / "cluster" / "ray-up.yaml"

#: Fields of KubeRay's v1 resources that an example may use, from its API reference; pods have Kubernetes' own schema.
RAY_JOB = {
    "entrypoint": str,
    "backoffLimit": int,
    "shutdownAfterJobFinishes": bool,
    "ttlSecondsAfterFinished": int,
    "activeDeadlineSeconds": int,
    "runtimeEnvYAML": str,
    "submissionMode": str,
    "rayClusterSpec": dict,
    "submitterPodTemplate": dict,
}
RAY_CLUSTER = {"rayVersion": str, "authOptions": dict, "headGroupSpec": dict, "workerGroupSpecs": list}
HEAD_GROUP = {"template": dict, "rayStartParams": dict, "serviceType": str}
WORKER_GROUP = {
    "groupName": str,
    "replicas": int,
    "minReplicas": int,
    "maxReplicas": int,
    "rayStartParams": dict,
    "template": dict,
}


@pytest.fixture(scope="module")
def job() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(KUBERAY.read_text())
    return found


@pytest.fixture(scope="module")
def pods(job: dict[str, Any]) -> dict[str, Any]:
    cluster = job["spec"]["rayClusterSpec"]
    found = {item["groupName"]: item["template"]["spec"] for item in cluster["workerGroupSpecs"]}
    found["head"] = cluster["headGroupSpec"]["template"]["spec"]
    found["submitter"] = job["spec"]["submitterPodTemplate"]["spec"]
    return found


def check_fields(data: dict[str, Any], known: dict[str, type]) -> None:
    for name, value in data.items():
        assert name in known, name
        assert type(value) is known[name], name


def test_the_job_has_fields_that_kuberay_knows(job: dict[str, Any]) -> None:
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    check_fields(job["spec"], RAY_JOB)
    cluster = job["spec"]["rayClusterSpec"]
    check_fields(cluster, RAY_CLUSTER)
    check_fields(cluster["headGroupSpec"], HEAD_GROUP)
    for group in cluster["workerGroupSpecs"]:
        check_fields(group, WORKER_GROUP)
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert all(isinstance(item, str) for item in group["rayStartParams"].values()), "KubeRay takes texts"


def test_the_pods_follow_kubernetes_schema(pods: dict[str, Any]) -> None:
    for name, spec in pods.items():
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
        kubernetes_validate.validate(pod, "1.33", strict=True)
        mounted = {item["name"] for container in spec["containers"] for item in container["volumeMounts"]}
        assert mounted <= {item["name"] for item in spec["volumes"]}


def test_the_pods_are_confined(pods: dict[str, Any]) -> None:
    for spec in pods.values():
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] == 10001
        assert spec["automountServiceAccountToken"] is False
        for container in spec["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"]
            assert re.search(r":\d", container["image"]), "pinned"


def test_ray_asks_for_a_token_there_and_no_secret_is_in_clear(job: dict[str, Any]) -> None:
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert not re.search(r"://[^/\s:@]+:[^@/\s]+@", KUBERAY.read_text())


def test_the_version_of_ray_is_the_one_that_is_installed(job: dict[str, Any]) -> None:
    pinned = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), flags=re.M)
    assert pinned is not None
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == pinned[1]


def test_the_jobs_command_is_one(job: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(job["spec"]["entrypoint"])
    assert words[:2] == ["autopeft", "search"]
    assert run(["search", "--help"]) == 0
    shown = capsys.readouterr().out
    for flag in (word for word in words if word.startswith("--")):
        assert flag in shown, flag


def test_the_ssh_cluster_follows_rays_schema_and_its_own_checks() -> None:
    """Ray is asked in a process of its own, because it warns of much."""
    schema = json.loads(files("ray").joinpath("autoscaler/ray-schema.json").read_text())
    jsonschema.validate(yaml.safe_load(RAY_UP.read_text()), schema)
    code = (
        "import sys, yaml; from ray.autoscaler._private.util import prepare_config, validate_config; "
        "validate_config(prepare_config(yaml.safe_load(open(sys.argv[1]))))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(RAY_UP)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_the_ssh_cluster_asks_for_a_token_on_every_machine() -> None:
    data = yaml.safe_load(RAY_UP.read_text())
    starts = [*data["head_start_ray_commands"], *data["worker_start_ray_commands"]]
    assert sum("ray start" in item for item in starts) == 2
    for command in starts:
        if "ray start" in command:
            assert "RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=~/.autopeft-secrets/ray_token" in command
            assert "--dashboard-host=0.0.0.0" not in command
