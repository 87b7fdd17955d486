"""The image and the composition, as far as they can be known without an engine.

The Dockerfile passes a linter, the composition its schema; the wheel that the image installs is
built and looked at in tests/integration/test_packaging.py from the same files.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from dicom_node import config
from support.source import ROOT

DOCKER = ROOT / "docker"
NODE_SERVICES = ("node", "worker")


def dockerfile() -> list[list[str]]:
    """Instructions with their words, comments and continuation lines resolved."""
    text = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
    lines = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", text, flags=re.M)).splitlines()
    return [line.split() for line in lines if line.strip()]


def composition() -> dict[str, Any]:  # Any: parsed YAML, checked by the schema
    yaml = pytest.importorskip("ruamel.yaml", reason="no YAML reader: pip install check-jsonschema")
    return dict(yaml.YAML(typ="safe").load(DOCKER / "compose.yaml"))


def tool(name: str) -> str:
    """A program beside this interpreter or on the PATH; the test is skipped aloud without it."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed on this machine")
    return found


def test_the_dockerfile_passes_its_linter() -> None:
    """hadolint has nothing to say, not even as a hint."""
    done = subprocess.run(
        [tool("hadolint"), "--no-color", DOCKER / "Dockerfile"], capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout) == (0, "")


def test_the_composition_fits_its_schema() -> None:
    """compose.yaml is valid by the Compose Specification's schema."""
    done = subprocess.run(
        [tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", DOCKER / "compose.yaml"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr


def test_docker_itself_reads_the_composition(tmp_path: Path) -> None:
    """Where the compose client is, it resolves the file without a complaint; no engine is needed."""
    docker = tool("docker")
    probe = subprocess.run([docker, "compose", "version"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip("docker has no compose plugin on this machine")
    shutil.copytree(DOCKER, tmp_path / "docker")
    (tmp_path / "docker" / "secrets").mkdir(exist_ok=True)
    (tmp_path / "docker" / "secrets" / "database-password").write_text("x", encoding="utf-8")

    done = subprocess.run(
        [docker, "compose", "-f", tmp_path / "docker" / "compose.yaml", "config", "--quiet"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert (done.returncode, done.stderr) == (0, "")


def test_every_copied_file_exists_and_is_let_into_the_build() -> None:
    """What COPY names is in the repository, and the ignore file lets it through."""
    sources = [
        word for line in dockerfile() if line[0] == "COPY" and not line[1].startswith("--from")
        for word in line[1:-1]
    ]  # fmt: skip
    let_in = {
        line[1:] for line in (DOCKER / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    }  # fmt: skip

    assert [name for name in sources if not (ROOT / name).exists()] == []
    assert set(sources) == let_in


def test_the_image_holds_what_the_wheel_needs() -> None:
    """Every folder the wheel is made of is copied into the build."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {*wheel["packages"], project["project"]["readme"]}
    copied = {word for line in dockerfile() if line[0] == "COPY" for word in line[1:-1]}

    assert needed <= copied


def test_the_image_runs_as_an_ordinary_user() -> None:
    """The last USER is a number that is not root's, and nothing is installed for development."""
    users = [line[1] for line in dockerfile() if line[0] == "USER"]

    assert users[-1] == "10001:10001"
    assert "[dev]" not in (DOCKER / "Dockerfile").read_text(encoding="utf-8")


def test_the_image_says_its_ports_and_its_health() -> None:
    """The ports of the default configuration are exposed, and the health page is asked."""
    lines = dockerfile()
    health = next(" ".join(line) for line in lines if line[0] == "HEALTHCHECK")
    defaults = config.Config()

    assert ["EXPOSE", str(defaults.receive.port), str(defaults.http.port)] in lines
    assert f":{defaults.http.port}/health" in health


def test_the_image_settings_exist() -> None:
    """Every DICOM_NODE_ variable of the image and the composition is a key of the configuration."""
    pairs = [word for line in dockerfile() if line[0] == "ENV" for word in shlex.split(" ".join(line[1:]))]
    image = dict(pair.split("=", 1) for pair in pairs)
    services = composition()["services"]
    environ = image | services["node"]["environment"]

    loaded = config.load(DOCKER / "node.toml", environ)

    assert loaded.node.data_dir == Path("/var/lib/dicom-node")
    assert loaded.receive.host == "0.0.0.0"  # noqa: S104 - inside the container
    assert loaded.store.database == "postgresql+psycopg://dicomnode@database/dicomnode"


def test_ports_are_published_on_loopback_only() -> None:
    """Whoever starts the composition as it is opens nothing to a network."""
    published = [port for service in composition()["services"].values() for port in service.get("ports", [])]

    assert published
    assert [port for port in published if not port.startswith("127.0.0.1:")] == []


def test_secrets_come_from_files() -> None:
    """No password in an environment variable or a command; only the path of a file."""
    made = composition()
    services = made["services"].values()
    environment = [pair for service in services for pair in service.get("environment", {}).items()]
    secret = [name for name, _ in environment if "PASSWORD" in name]

    assert secret and all(name.endswith("_FILE") for name in secret)
    assert all("file" in source for source in made["secrets"].values())
    assert not any(re.search(r"://[^/@]*:[^/@]+@", str(value)) for _, value in environment)


@pytest.mark.parametrize("service", NODE_SERVICES)
def test_the_node_runs_confined(service: str) -> None:
    """Read-only root, no capabilities, no new privileges."""
    made = composition()["services"][service]

    assert made["read_only"] is True
    assert made["cap_drop"] == ["ALL"]
    assert made["security_opt"] == ["no-new-privileges:true"]


def test_the_worker_reaches_the_ledger_only() -> None:
    """Untrusted pixels are decoded where there is no way out: no port, no outer network."""
    made = composition()

    assert made["services"]["worker"]["networks"] == ["ledger"]
    assert "ports" not in made["services"]["worker"]
    assert made["networks"]["ledger"]["internal"] is True


def test_the_node_is_split_by_command() -> None:
    """One image, two roles: the receiver without workers, and the workers."""
    services = composition()["services"]

    assert services["node"]["command"] == ["serve", "--no-worker"]
    assert services["worker"]["command"] == ["work"]
    assert services["node"]["image"] == services["worker"]["image"]


def test_whatever_is_named_is_defined() -> None:
    """Volumes, networks and secrets a service uses stand at the end of the file; images have a version."""
    made = composition()
    for service in made["services"].values():
        volumes = [mount.split(":")[0] for mount in service.get("volumes", [])]

        assert {name for name in volumes if not name.startswith(".")} <= set(made["volumes"])
        assert all((DOCKER / name).is_file() for name in volumes if name.startswith("."))
        assert set(service.get("networks", [])) <= set(made["networks"])
        assert set(service.get("secrets", [])) <= set(made["secrets"])
        assert re.search(r":[0-9]", service["image"])


def test_the_test_pacs_and_the_node_know_each_other() -> None:
    """AE titles, addresses and ports agree on both sides."""
    pacs = json.loads((DOCKER / "orthanc.json").read_text(encoding="utf-8"))
    node = config.load(DOCKER / "node.toml", environ={})
    (peer,) = node.peer
    known = pacs["DicomModalities"]["dicom-node"]

    assert (peer.ae_title, peer.port) == (pacs["DicomAet"], pacs["DicomPort"])
    assert (known["AET"], known["Port"]) == (node.node.ae_title, node.receive.port)
    assert known["Host"] in composition()["services"]
    assert peer.host == composition()["services"]["pacs"]["networks"]["dicom"]["ipv4_address"]
