"""One error tree, split by whose fault it is.

A message says what was seen, what was expected and, for the operator, what to do.
Every RemoteError has a `reason`: the word under which it is counted in a member's status.
"""

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from pydantic import ValidationError


class EdgechoirError(Exception):
    """Base of every error the package raises."""


class LocalError(EdgechoirError):
    """We broke a rule: a bug in this process."""


class OperatorError(EdgechoirError):
    """What the operator gave (configuration, file, address, command line) cannot work as it is."""


class InUse(OperatorError):
    """Another command or process has what is needed; later it may be free."""


class ConfigError(OperatorError):
    """A configuration names an unknown key or a value that is not allowed."""


class LinkError(EdgechoirError):
    """The broker cannot be reached, refused us, or did not answer before the deadline."""


class SourceError(EdgechoirError):
    """A sensor cannot be read now; it is counted, and tried again after a pause."""


class TrainingError(EdgechoirError):
    """A training job failed or was cancelled; the device goes on inferring."""


class RemoteError(EdgechoirError):
    """A peer broke a rule: count it under `reason`, drop what it sent, carry on."""

    reason: ClassVar[str] = "refused"


class Malformed(RemoteError):
    """Bytes that are not a message: truncated, oversized, wrong magic, wrong field."""

    reason = "malformed"


class BadSignature(RemoteError):
    """The signature does not fit the bytes and the certificate beside them, or is missing."""

    reason = "bad_signature"


class BadCertificate(RemoteError):
    """The certificate is not of this fleet, out of its time, or for another role."""

    reason = "bad_certificate"


class Revoked(RemoteError):
    """The certificate is one that the fleet's CA has revoked."""

    reason = "revoked"


class UnknownMember(RemoteError):
    """The sender is of this fleet but not one that may speak here."""

    reason = "unknown_member"


class Replayed(RemoteError):
    """A message seen before, or older than one already accepted."""

    reason = "replayed"


class DuplicateIdentity(RemoteError):
    """A second live process speaks under an identity that is already taken."""

    reason = "duplicate_identity"


class OutOfPlace(RemoteError):
    """A well-formed message that the state of the round has no place for."""

    reason = "out_of_place"


class PolicyViolation(RemoteError):
    """A plan or roster asks for less protection than this member's policy."""

    reason = "policy"


class BadUpdate(RemoteError):
    """An update that is non-finite, of the wrong length or outside the ring's bound."""

    reason = "bad_update"


class BadModel(RemoteError):
    """A model whose hash, signature, shape or canary result is wrong."""

    reason = "bad_model"


class BadSample(RemoteError):
    """A sensor value that the source's declaration does not allow."""

    reason = "bad_sample"


class WrongShape(BadSample):
    """A sample whose values have another shape or type than the model takes."""

    reason = "wrong_shape"


class OutOfRange(BadSample):
    """A sample with a value below the declared minimum or above the maximum."""

    reason = "out_of_range"


class MissingValue(BadSample):
    """A sample with a value that is absent or not a finite number."""

    reason = "missing_value"


class OutOfOrder(BadSample):
    """A sample that is older than one already taken into the window of its key."""

    reason = "out_of_order"


class InferenceError(EdgechoirError):
    """The model gave no usable answer to one request, or not before its deadline."""


def first_wrong(error: "ValidationError") -> tuple[str, str]:
    """Where the first fault is that a document's model has found, as names with dots between them
    (nothing for the document as a whole), and what it is."""
    first = error.errors(include_url=False, include_input=False)[0]
    return ".".join(str(part) for part in first["loc"]), first["msg"]
