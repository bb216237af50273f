"""A broker's folder: made by the CA, copied to the machine where the broker runs."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class BrokerFiles:
    """Paths of the folder. `server.key` is private, the rest is public."""

    directory: Path

    @property
    def key(self) -> Path:
        return self.directory / "server.key"

    @property
    def certificate(self) -> Path:
        return self.directory / "server.crt"

    @property
    def ca(self) -> Path:
        return self.directory / "ca.crt"

    @property
    def crl(self) -> Path:
        return self.directory / "ca.crl"

    @property
    def registry(self) -> Path:
        return self.directory / "registry.json"

    def __str__(self) -> str:
        return str(self.directory)
