"""compose.yaml is one that compose takes, keeps our rules, and starts what there is."""

import os
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgechoir.cli import parser
from edgechoir.config import DeviceConfig, load
from edgechoir.config.tiers import MonitorConfig
from edgechoir.fleet.enrolment import load_member
from edgechoir.tiers.process import check_identity

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
Compose = dict[str, Any]

# Those of the Compose Specification that are used here, with the shape of their values.
DURATION = re.compile(r"(\d+(ms|s|m|h))+")
SIZE = re.compile(r"\d+[bkmg]b?")
KEYS = {
    "cap_drop": list,
    "command": list,
    "cpus": float,
    "depends_on": dict,
    "healthcheck": dict,
    "image": str,
    "init": bool,
    "logging": dict,
    "mem_limit": str,
    "networks": list,
    "pids_limit": int,
    "ports": list,
    "pull_policy": str,
    "read_only": bool,
    "restart": str,
    "security_opt": list,
    "stop_grace_period": str,
    "tmpfs": list,
    "user": str,
    "volumes": list,
}


def test_every_key_is_one_of_the_specification(
    compose: Callable[..., Compose], services: Compose
) -> None:
    top = {key for key in compose() if not key.startswith("x-")}
    assert top == {"name", "services", "networks", "volumes"}
    for name, service in services.items():
        assert re.fullmatch(r"[a-zA-Z0-9._-]+", name)
        for key, value in service.items():
            assert isinstance(value, KEYS[key]), f"{name}: {key} is {value!r}"
        assert DURATION.fullmatch(service["stop_grace_period"])
        assert SIZE.fullmatch(service["mem_limit"])


def test_what_a_service_names_is_declared(
    compose: Callable[..., Compose], services: Compose
) -> None:
    document = compose()
    mounted = []
    for service in services.values():
        assert set(service["networks"]) <= set(document["networks"])
        for other, how in service.get("depends_on", {}).items():
            assert other in services
            assert how == {"condition": "service_healthy"}
        sources = [volume.partition(":")[0] for volume in service["volumes"]]
        mounted += [source for source in sources if not source.startswith((".", "/"))]
    assert sorted(mounted) == sorted(document["volumes"]), "each state has one container"


def test_no_service_can_do_more_than_it_must(services: Compose) -> None:
    for name, service in services.items():
        user, group = service["user"].split(":")
        assert int(user) > 0, name
        assert int(group) > 0, name
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert all("noexec" in each and "size=" in each for each in service["tmpfs"]), name
        # Keys that would give rights back are not among those we use.
        assert not {"cap_add", "privileged", "devices", "pid", "ipc", "network_mode"} & set(service)


def test_every_service_is_bounded_and_asked_after(services: Compose) -> None:
    for name, service in services.items():
        assert 0 < service["cpus"] <= 2, name
        assert 0 < service["pids_limit"] <= 256, name
        assert service["init"], name
        assert service["restart"] == "unless-stopped", name
        assert {"max-size", "max-file"} == set(service["logging"]["options"]), name
        health = service["healthcheck"]
        assert health["test"][:2] == ["CMD", "edgechoir"], name
        assert all(DURATION.fullmatch(health[k]) for k in ("interval", "timeout", "start_period"))
        assert health["retries"] > 0, name


def test_a_secret_is_a_file_that_cannot_be_written_to(services: Compose) -> None:
    for name, service in services.items():
        assert "environment" not in service, name
        assert "env_file" not in service, name
        volumes = [volume.split(":") for volume in service["volumes"]]
        identity = [v for v in volumes if v[1] == "/etc/edgechoir"]
        assert len(identity) == 1, name
        for source, target, *mode in volumes:
            assert mode == ["ro"] or (source, target) == (name, "/var/lib/edgechoir")
            assert not source.endswith(("/ca", "/site")), f"{name} sees the CA's key"


def test_members_reach_the_broker_and_nothing_else(
    compose: Callable[..., Compose], services: Compose
) -> None:
    assert compose()["networks"]["fleet"] == {"internal": True}
    for name, service in services.items():
        if name == "broker":
            assert service["ports"] == ["127.0.0.1:8883:8883"]
        else:
            assert service["networks"] == ["fleet"]
            assert "ports" not in service


def test_every_command_is_one_of_ours(services: Compose) -> None:
    for name, service in services.items():
        args = parser().parse_args(service["command"])
        assert args.run is not None, name
        health = parser().parse_args(service["healthcheck"]["test"][2:])
        state = "/var/lib/edgechoir/state"
        assert str(health.state) == state
        if name == "broker":
            assert str(args.state) == state


def test_every_image_is_one_that_we_build_in_the_version_at_hand(services: Compose) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    dockerfile = (DOCKER / "Dockerfile").read_text()
    targets = set(re.findall(r"^FROM \S+ AS (\S+)$", dockerfile, re.MULTILINE))
    for service in services.values():
        name, _, tag = service["image"].rpartition(":")
        assert name.removeprefix("edgechoir-") in targets
        assert tag == version
        assert service["pull_policy"] == "never"
    assert "latest" not in dockerfile


def test_an_image_runs_as_no_root_whatever_starts_it() -> None:
    stages = (DOCKER / "Dockerfile").read_text().split("\nFROM ")[1:]
    finals = [stage for stage in stages if "ENTRYPOINT" in stage]
    assert len(finals) == 4
    for stage in finals:
        assert re.findall(r"^USER (.*)$", stage, re.MULTILINE) == ["10001:10001"]
        for words in re.findall(r'^CMD (\[".*"\])$', stage, re.MULTILINE):
            command = re.findall(r'"([^"]*)"', words)
            if command != ["--help"]:
                assert parser().parse_args(command).run is not None


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What site.sh makes."""
    folder = tmp_path_factory.mktemp("site") / "site"
    make_site(folder)
    return folder


def make_site(folder: Path) -> str:
    done = subprocess.run(
        ["sh", str(DOCKER / "site.sh"), str(folder)],
        env={**os.environ, "EDGECHOIR": f"{sys.executable} -m edgechoir", "HOSTS": "10.1.2.3"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_site_has_what_the_services_mount(compose: Callable[..., Compose], site: Path) -> None:
    lines = (site / "env").read_text().splitlines()
    variables = dict(line.split("=", 1) for line in lines)
    mounted = set()
    for name, service in compose(**variables)["services"].items():
        assert int(service["user"].partition(":")[0]) > 0, name
        sources = [Path(v.partition(":")[0]) for v in service["volumes"] if v.startswith("/")]
        assert all(source.is_dir() for source in sources), name
        mounted |= set(sources)
        if name == "broker":
            continue
        config = load(site / "members" / name / "config.toml")
        assert config.tier == service["command"][0]
        assert not isinstance(config, MonitorConfig)
        assert str(config.state) == service["healthcheck"]["test"][3]
        check_identity(config, load_member(config.identity, time.time()))
        assert config.broker.host == "broker"
        if isinstance(config, DeviceConfig):
            assert config.training.enabled == ("trainer" in service["image"])
    unused = {each for each in (site / "members").iterdir() if each not in mounted}
    assert {each.name for each in unused} == {"eye"}, "the monitor is for people"


def test_the_site_made_again_is_left_as_it_is(site: Path) -> None:
    def contents() -> dict[Path, bytes]:
        return {p: p.read_bytes() for p in site.rglob("*") if p.is_file()}

    before = contents()
    said = make_site(site)
    assert contents() == before
    assert "enrolled" not in said
