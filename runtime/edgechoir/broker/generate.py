"""One fleet, any broker: the files that a broker of each make is configured with.

Each file says in its head whether it has been tested, and with what. Where a make cannot be told
something that mosquitto can, its module says so.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from edgechoir.broker.aws_iot import aws_files
from edgechoir.broker.emqx import emqx_files
from edgechoir.broker.federation import Federation
from edgechoir.broker.hivemq import hivemq_files
from edgechoir.broker.mosquitto import mosquitto_files
from edgechoir.broker.nats import nats_files
from edgechoir.broker.rabbitmq import rabbitmq_files
from edgechoir.broker.settings import BrokerSettings
from edgechoir.errors import OperatorError
from edgechoir.fleet.files import PRIVATE, make_directory, write_atomic

Make = Callable[[BrokerSettings, Federation, Path], dict[str, str]]


def _mosquitto(settings: BrokerSettings, federation: Federation, place: Path) -> dict[str, str]:
    return mosquitto_files(settings, federation, place=str(place), user=None)


def _bridge(settings: BrokerSettings, federation: Federation, place: Path) -> dict[str, str]:
    if settings.upper is None:
        raise OperatorError("a bridge needs --bridge, --upper and --identity")
    return _mosquitto(settings, federation, place)


MAKES: Final[Mapping[str, Make]] = {
    "mosquitto": _mosquitto,
    "bridge": _bridge,
    "rabbitmq": rabbitmq_files,
    "emqx": emqx_files,
    "hivemq": hivemq_files,
    "nats": nats_files,
    "aws-iot": aws_files,
}


def generate(
    make: str, settings: BrokerSettings, federation: Federation, place: Path
) -> dict[str, str]:
    """File name -> content. `place`: where the files will lie. Raises OperatorError."""
    return MAKES[make](settings, federation, place)


def write_files(files: Mapping[str, str], directory: Path) -> list[Path]:
    """Write them, for their owner alone. Raises OperatorError."""
    make_directory(directory)
    for name, text in files.items():
        write_atomic(directory / name, text.encode(), PRIVATE)
    return [directory / name for name in files]
