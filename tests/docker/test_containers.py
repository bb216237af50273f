"""The images built, and the federation of compose.yaml run from them under podman.

Skipped unless EDGECHOIR_BASE_IMAGE names a base image in podman's storage; docker/README.md has the
commands. Prints sizes, memory and times with `-s`.
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from edgechoir.config.reading import load_for
from edgechoir.config.tiers import MonitorConfig
from edgechoir.demo.watch import Seen, follow
from edgechoir.fleet.enrolment import load_member
from edgechoir.monitor.status import MemberState
from edgechoir.tiers.process import link_of

ROOT: Final = Path(__file__).parents[2]
PROJECT: Final = "edgechoir-test"
BASE: Final = os.environ.get("EDGECHOIR_BASE_IMAGE")
ROLES: Final = ("tier", "mosquitto", "device", "trainer")
LEARNING: Final = 9
WAIT_S: Final = 240.0
# Without CAP_SYS_RESOURCE podman cannot raise limits to its defaults; lower ones are as good here.
ULIMITS: Final = ("--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024")
# What each container shows of itself, from within.
LOOK: Final = """
id -u
grep -E '^(CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs|Seccomp):' /proc/1/status
touch /opt/edgechoir/x /etc/edgechoir/x /x 2>&1 || true
touch /tmp/x /var/lib/edgechoir/x && rm /tmp/x /var/lib/edgechoir/x && echo writable
"""


def missing() -> str | None:
    """Why no container can run here."""
    programs = [name for name in ("podman", "buildah") if shutil.which(name) is None]
    if programs:
        return f"{' and '.join(programs)} not installed"
    if BASE is None:
        return "EDGECHOIR_BASE_IMAGE names no base image (docker/README.md says how to make one)"
    return None


pytestmark = [
    pytest.mark.containers,
    pytest.mark.timeout(900),
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]


def call(*words: str | Path, seconds: float = 120.0, **variables: str) -> str:
    """What a command that must succeed prints."""
    done = subprocess.run(
        [str(word) for word in words],
        capture_output=True,
        text=True,
        timeout=seconds,
        env={**os.environ, **variables},
        check=False,
    )
    assert done.returncode == 0, f"{words}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout


def podman(*words: str, seconds: float = 120.0) -> str:
    runtime = ("--runtime=runc",) if shutil.which("runc") else ()
    return call("podman", *runtime, *words, seconds=seconds)


@dataclass(frozen=True)
class Federation:
    """Running containers, by the names of their services."""

    site: Path
    services: dict[str, dict[str, Any]]
    started: float
    """When the first container was started, unix seconds."""

    def do(self, verb: str, *names: str) -> str:
        return podman(verb, *(f"{PROJECT}-{name}" for name in names))

    def within(self, name: str, *words: str) -> str:
        return podman("exec", f"{PROJECT}-{name}", *words)

    def watch(self, story: Callable[[Seen], Coroutine[Any, Any, None]]) -> None:
        """Let a monitor look on from this machine while a story happens."""
        template = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        address = podman("inspect", f"{PROJECT}-broker", "--format", template).strip()
        config = load_for(self.site / "members" / "eye" / "config.toml", MonitorConfig)
        broker = config.broker.model_copy(update={"host": address, "server_name": "broker"})
        config = config.model_copy(update={"broker": broker})

        @asynccontextmanager
        async def seen() -> Any:
            member = load_member(config.identity, time.time())
            async with link_of(config, member, None) as link:
                await link.connected(20)
                view = Seen(config.federation)
                task = asyncio.create_task(follow(link, view, lambda _: None))
                try:
                    yield view
                finally:
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)

        async def main() -> None:
            async with seen() as view:
                await story(view)

        asyncio.run(main())


def build(wheels: Path, tag: str, *targets: str, options: str = "") -> None:
    call(
        "sh",
        ROOT / "docker/build.sh",
        *targets,
        seconds=500,
        ENGINE="buildah",
        BASE=str(BASE),
        PREFIX="localhost/",
        TAG=tag,
        WHEELHOUSE=str(wheels),
        BUILD_OPTIONS=f"--isolation chroot --network host {options}",
    )


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("wheels")


@pytest.fixture(scope="module")
def images(wheels: Path) -> dict[str, str]:
    """The image of each role, built from wheels that were fetched for it."""
    began = time.monotonic()
    call("sh", ROOT / "docker/wheelhouse.sh", wheels, seconds=300, PYTHON=sys.executable)
    gathered = time.monotonic()
    build(wheels, "test")
    built = time.monotonic()
    print(
        f"\nwheels gathered in {gathered - began:.0f} s, images built in {built - gathered:.0f} s"
    )
    return {role: f"localhost/edgechoir-{role}:test" for role in ROLES}


@pytest.fixture(scope="module")
def federation(
    images: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
    compose: Callable[..., dict[str, Any]],
    podman_options: Callable[[str, dict[str, Any], str], list[str]],
) -> Iterator[Federation]:
    """Every service of compose.yaml as a container, on a network that leads nowhere."""
    site = tmp_path_factory.mktemp("site") / "site"
    edgechoir = f"{sys.executable} -m edgechoir"
    call("sh", ROOT / "docker/site.sh", site, EDGECHOIR=edgechoir)
    call(sys.executable, ROOT / "docker/digits.py", site)
    lines = (site / "env").read_text().splitlines()
    variables = dict(line.split("=", 1) for line in lines)
    # The container's user must get through pytest's folders, which are this user's alone.
    for above in site.parents:
        if above.stat().st_uid == os.getuid() and above not in (Path("/"), Path("/tmp")):
            above.chmod(above.stat().st_mode | 0o011)
    services = compose(EDGECHOIR_PREFIX="localhost/", EDGECHOIR_TAG="test", **variables)["services"]
    names = [f"{PROJECT}-{name}" for name in services]
    podman("network", "create", "--internal", f"{PROJECT}-fleet")
    started = time.time()
    try:
        for name, service in services.items():
            options = podman_options(name, service, PROJECT)
            podman("run", "--detach", "--no-healthcheck", *ULIMITS, *options)
        print(f"{len(names)} containers started in {time.time() - started:.1f} s")
        yield Federation(site, services, started)
    finally:
        podman("rm", "--force", "--time=20", "--ignore", *names)
        volumes = podman("volume", "ls", "--quiet").split()
        podman("volume", "rm", "--force", *(v for v in volumes if v.startswith(f"{PROJECT}-")))
        podman("network", "rm", f"{PROJECT}-fleet")


def test_the_images_hold_what_their_role_needs_and_say_what_they_are(
    images: dict[str, str],
) -> None:
    here = {"tier": set(), "mosquitto": set(), "device": {"onnxruntime"}}
    here["trainer"] = {"onnxruntime", "torch"}
    find = "import importlib.util as u; print([m for m in {!r} if u.find_spec(m)])"
    for role, image in images.items():
        seen = json.loads(podman("inspect", "--type=image", image))[0]
        print(f"image {role}: {seen['Size'] / 1e6:.0f} MB")
        assert seen["User"] == "10001:10001"
        assert seen["Labels"]["org.opencontainers.image.title"] == f"edgechoir-{role}"
        assert seen["Labels"]["org.opencontainers.image.base.name"] == BASE
        looked = ("onnxruntime", "torch", "onnx", "pip")
        run = ("run", "--rm", "--network=none", *ULIMITS, "--entrypoint=python")
        found = podman(*run, image, "-c", find.format(looked)).strip()
        assert found == str([name for name in looked if name in here[role]])


def test_an_image_built_twice_has_the_same_layers(images: dict[str, str], wheels: Path) -> None:
    assert images
    seen = []
    for tag in ("first", "second"):
        build(wheels, tag, "tier", options="--no-cache")
        image = f"localhost/edgechoir-tier:{tag}"
        seen.append(podman("inspect", "--type=image", "--format={{.RootFS.Layers}}", image))
        podman("rmi", image)
    assert seen[0] == seen[1]


def test_the_federation_learns_and_goes_on_after_its_node_was_killed(
    federation: Federation,
) -> None:
    async def story(seen: Seen) -> None:
        def rounds() -> int:
            return sum(m.outcome == "done" and m.devices == LEARNING for m in seen.rounds)

        def state(member: str) -> MemberState | None:
            status = seen.statuses.get(member)
            return None if status is None else status.state

        await seen.until(lambda _: rounds() >= 1, WAIT_S, f"a round with {LEARNING} devices")
        print(f"first round over {time.time() - federation.started:.1f} s after the first start")
        await seen.until(lambda s: s.online("device") == LEARNING + 1, 60, "the tenth device")

        before = seen.statuses["node-1"].instance
        federation.do("kill", "node-1")
        await seen.until(lambda _: state("node-1") is MemberState.LOST, 60, "the loss of node-1")
        done = rounds()
        federation.do("start", "node-1")
        restarted = time.time()
        await seen.until(lambda _: rounds() > done, WAIT_S, "a round with all devices again")
        print(f"a round with all {time.time() - restarted:.1f} s after the node's restart")
        assert seen.statuses["node-1"].instance != before
        assert not any("policy" in s.drops for s in seen.statuses.values())

    federation.watch(story)


def test_no_container_can_do_more_than_it_must(federation: Federation) -> None:
    for name in federation.services:
        said = federation.within(name, "sh", "-c", LOOK).split("\n")
        facts = dict(line.split(":\t") for line in said if ":\t" in line)
        assert int(said[0]) > 0, name
        assert {int(facts[key], 16) for key in facts if key.startswith("Cap")} == {0}, name
        assert (facts["NoNewPrivs"], facts["Seccomp"]) == ("1", "2"), name
        refused = [line for line in said if "Read-only file system" in line]
        assert len(refused) == 3, said
        assert "writable" in said


def test_every_container_answers_its_health_check_at_once(federation: Federation) -> None:
    slowest = 0.0
    for name, service in federation.services.items():
        began = time.monotonic()
        said = federation.within(name, *service["healthcheck"]["test"][1:])
        slowest = max(slowest, time.monotonic() - began)
        assert " has run for " in said, name
    print(f"slowest health check, with podman exec around it: {slowest:.2f} s")


def test_a_container_that_is_paused_is_not_well(federation: Federation) -> None:
    """Its processes stand still, as those that hang do; the question is asked from this side."""
    volume = json.loads(podman("volume", "inspect", f"{PROJECT}-dev-10"))[0]["Mountpoint"]
    ask = (sys.executable, "-m", "edgechoir", "healthy", f"{volume}/state")
    assert call(*ask).startswith("device/dev-10 ")
    federation.do("pause", "dev-10")
    try:
        asked = subprocess.run(ask, capture_output=True, text=True, timeout=60, check=False)
        assert asked.returncode == 1
        assert "did not answer within 2 s" in asked.stderr
    finally:
        federation.do("unpause", "dev-10")


def test_memory_keeps_within_the_limits_with_room(federation: Federation) -> None:
    async def story(seen: Seen) -> None:
        await seen.until(lambda s: s.online("device") == LEARNING + 1, 60, "all devices")
        for member, status in sorted(seen.statuses.items()):
            rss = status.health.rss_mb if status.health else None
            print(f"{member}: {rss} MB resident")

    federation.watch(story)
    names = [f"{PROJECT}-{name}" for name in federation.services]
    form = "{{.Name}} {{.MemUsage}} {{.MemPerc}} {{.PIDs}}"
    for line in podman("stats", "--no-stream", "--format", form, *names).splitlines():
        print(line)
        assert float(line.split()[-2].removesuffix("%")) < 85, line


def test_a_container_stops_cleanly(federation: Federation) -> None:
    names = ("dev-10", "dev-09", "node-3", "cloud", "broker")
    began = time.monotonic()
    federation.do("stop", *names)
    took = time.monotonic() - began
    print(f"{len(names)} containers stopped in {took:.1f} s")
    for name in names:
        state = json.loads(podman("inspect", f"{PROJECT}-{name}"))[0]["State"]
        assert (state["ExitCode"], state["OOMKilled"]) == (0, False), name
