"""The compose file as a value, and its services as containers under podman.

podman reads no compose file, so each service's options are turned into those of `podman run`: what
is tried is what stands in the file.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

ROOT: Final = Path(__file__).parents[2]
DOCKER: Final = ROOT / "docker"
Service = dict[str, Any]

_VARIABLE: Final = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


def interpolate(text: str, variables: dict[str, str]) -> str:
    """Put variables in, as compose does: `${NAME}` and `${NAME:-default}`."""
    return _VARIABLE.sub(lambda m: variables.get(m[1]) or m[2] or "", text)


def read_compose(**variables: str) -> dict[str, Any]:
    """The compose file with these variables, merge keys resolved."""
    text = (DOCKER / "compose.yaml").read_text()
    document: dict[str, Any] = yaml.safe_load(interpolate(text, variables))
    return document


@pytest.fixture(scope="session")
def compose() -> Callable[..., dict[str, Any]]:
    """Reads the compose file: `compose(EDGECHOIR_TAG="1.0")`."""
    return read_compose


@pytest.fixture(scope="session")
def services() -> dict[str, Service]:
    """The services of the compose file, without any variable set."""
    found: dict[str, Service] = read_compose()["services"]
    return found


@pytest.fixture(scope="session")
def podman_options() -> Callable[[str, Service, str], list[str]]:
    return run_options


def run_options(name: str, service: Service, project: str) -> list[str]:
    """`podman run` options that do what the service says, its image and its command."""
    options = ["--name", f"{project}-{name}", "--hostname", name, "--network-alias", name]
    options += ["--network", f"{project}-{service['networks'][0]}", "--user", service["user"]]
    options += ["--memory", service["mem_limit"], "--cpus", str(service["cpus"])]
    options += ["--pids-limit", str(service["pids_limit"])]
    options += ["--stop-timeout", service["stop_grace_period"].removesuffix("s")]
    options += [f"--cap-drop={each}" for each in service["cap_drop"]]
    options += [f"--security-opt={each.partition(':')[0]}" for each in service["security_opt"]]
    options += [f"--tmpfs={each}" for each in service["tmpfs"]]
    options += ["--init"] if service["init"] else []
    options += ["--read-only"] if service["read_only"] else []
    volumes = (each.partition(":") for each in service["volumes"])
    options += [
        f"--volume={source if source.startswith('/') else f'{project}-{source}'}:{rest}"
        for source, _, rest in volumes
    ]
    return [*options, service["image"], *service["command"]]
