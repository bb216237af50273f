"""One enrolled device and its CA's root."""

import os
from pathlib import Path
from typing import Final

import pytest

from edgechoir.fleet.authority_dir import init_authority, sign_request
from edgechoir.fleet.enrolment import Member, install_certificate, load_member, make_request

NOW: Final = 1_800_000_000.0


@pytest.fixture(scope="session")
def member(tmp_path_factory: pytest.TempPathFactory) -> Member:
    folder = tmp_path_factory.mktemp("member")
    init_authority(folder / "ca", "alps", NOW, 365, os.urandom, None)
    request = make_request(folder / "dev-1", "alps", "dev-1", "device", os.urandom).read_bytes()
    issued = sign_request(folder / "ca", request, "device", NOW, 30, os.urandom, None)
    ca: Path = folder / "ca" / "ca.crt"
    install_certificate(folder / "dev-1", issued.pem, ca.read_bytes(), NOW)
    return load_member(folder / "dev-1", NOW)
