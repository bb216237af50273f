"""The federation's policy on disk: made beside the CA, pinned in each member's directory."""

from pathlib import Path
from typing import Final

from edgechoir.errors import OperatorError, RemoteError
from edgechoir.fleet.authority_dir import open_authority
from edgechoir.fleet.files import PUBLIC, write_atomic
from edgechoir.identity.certificate import Root
from edgechoir.identity.policy import Policy, read_policy, sign_policy

NAME: Final = "policy"
"""Of the file, in the CA's directory and in a member's."""


def write_policy(authority: Path, policy: Policy, passphrase: bytes | None) -> Path:
    """Sign a policy with the CA's key, in place of an earlier one. Raises OperatorError."""
    ca = open_authority(authority, passphrase)
    path = authority / NAME
    write_atomic(path, sign_policy(ca.key, ca.root.federation, policy), PUBLIC)
    return path


def pin_policy(directory: Path, text: bytes, root: Root) -> Policy:
    """Take a signed policy into a member's directory, if the fleet's CA has signed it.

    Raises OperatorError.
    """
    try:
        signed = read_policy(text, root)
    except RemoteError as error:
        raise OperatorError(f"the policy cannot be pinned: {error}") from None
    write_atomic(directory / NAME, text, PUBLIC)
    return signed.policy


def pinned_policy(directory: Path, root: Root) -> Policy:
    """A member's pinned policy; the built-in one where none was ever given.

    Raises OperatorError for a file that the fleet's CA has not signed.
    """
    path = directory / NAME
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return Policy()
    except OSError as error:
        raise OperatorError(f"{path}: {error.strerror}") from None
    try:
        return read_policy(text, root).policy
    except RemoteError as error:
        raise OperatorError(
            f"{path}: {error}; get the policy file from the CA's directory again"
        ) from None
