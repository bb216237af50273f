"""One process of a member, from received bytes to bytes to send, without I/O.

It puts together what every tier does alike: open the envelope, let it through the gate, decode the
body, step the state machines, sign what they want sent. A host (a real one on MQTT, or the
simulator) carries the bytes, keeps the clock and does the work that is asked for. What a peer gets
wrong is counted by reason and goes no further.

`now` is the system's clock, because certificates have dates. It may be set: forward, and deadlines
pass early, so that a turn may fail; back, and what is due moves back with it, so that nothing waits
for the lost hours to come round again.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Final

from edgechoir import wire
from edgechoir.errors import BadModel, RemoteError
from edgechoir.identity.envelope import Envelope, Signer, Verifier
from edgechoir.identity.gate import Gate
from edgechoir.rounds.events import (
    Back,
    Effect,
    Event,
    Gone,
    Received,
    Refused,
    ToAll,
    ToChild,
    ToParent,
)
from edgechoir.rounds.joint import Joint, shift, step
from edgechoir.types import Address, Entropy

CHANNEL_OF: Final = {wire.Roster: "roster", wire.Reveal: "plan", wire.Abort: "plan"}


@dataclass(frozen=True, slots=True)
class Outgoing:
    """Bytes for a channel: "up" to the parent, "down" to `member`, or retained for all children."""

    channel: str
    member: str
    data: bytes


@dataclass(frozen=True, slots=True)
class ModelArrived:
    """A signed global model from the cloud; `envelope` is what goes further down, as it came."""

    model: wire.Model
    envelope: bytes


Outcome = Effect | Outgoing | ModelArrived


class Endpoint:
    """A member's process. `drops` counts by reason what was refused."""

    def __init__(
        self, joint: Joint, signer: Signer, verifier: Verifier, gate: Gate, entropy: Entropy
    ) -> None:
        self.joint = joint
        self.drops: Counter[str] = Counter()
        self._signer = signer
        self._verifier = verifier
        self._gate = gate
        self._entropy = entropy
        self._sequence = 0
        self._latest = float("-inf")

    def receive(self, data: bytes, now: float, *, retained: bool = False) -> list[Outcome]:
        """Take in one message. Whatever is wrong with it comes back as `Refused`."""
        try:
            opened = self._verifier.open(data, now)
            if opened.kind == wire.Model.KIND:
                return [_model(opened, data)]
            self._gate.admit(opened, retained=retained)
            message = wire.decode(opened.kind, opened.body)
            event = Received(opened.sender, opened.instance, message, data)
            return self.handle(event, now)
        except RemoteError as error:
            self.drops[error.reason] += 1
            return [Refused(error)]

    def handle(self, event: Event, now: float) -> list[Outcome]:
        """Step the state machines. Raises RemoteError for a `Received` that has no place."""
        if now < self._latest:
            self.joint = shift(self.joint, now - self._latest)
        self._latest = now
        self.joint, effects = step(self.joint, event, now, self._entropy)
        out: list[Outcome] = []
        for effect in effects:
            match effect:
                case ToParent(message):
                    out.append(Outgoing("up", "", self.sign(message)))
                case ToChild(member, message):
                    out.append(Outgoing("down", member, self.sign(message)))
                case ToAll(message):
                    out.append(Outgoing(CHANNEL_OF[type(message)], "", self.sign(message)))
                case Refused(error):
                    self.drops[error.reason] += 1
                    out.append(effect)
                case _:
                    out.append(effect)
        return out

    def sign(self, message: wire.Message) -> bytes:
        """The signed envelope of a message."""
        self._sequence += 1
        return self._signer.wrap(message.KIND, wire.parts(message), self._sequence)

    def release(self, address: Address, instance: bytes) -> None:
        """A peer's process has ended; another one may speak in its name."""
        self._gate.release(address, instance)

    def reclaim(self, address: Address, instance: bytes) -> None:
        """A peer's process that was given up is back."""
        self._gate.reclaim(address, instance)
        down = self.joint.down
        away = None if down is None else down.away.get(str(address.member))
        if away is not None and away.entry.certificate.serial not in self._verifier.revoked:
            back = Back(str(address.member), instance)
            self.joint, _ = step(self.joint, back, self._latest, self._entropy)

    def renew(self, signer: Signer) -> None:
        """Sign with another certificate of this member from here on."""
        self._signer = signer

    def revoke(self, serials: frozenset[int], now: float) -> list[Outcome]:
        """Hear nobody under these certificates any more, and wait for none of them."""
        self._verifier.revoked = serials
        down = self.joint.down
        out: list[Outcome] = []
        for group in () if down is None else (down.pending, down.members):
            for name, child in group.items():
                if child.entry.certificate.serial in serials:
                    gone = Gone(name, child.entry.instance, "was revoked")
                    out += self.handle(gone, now)
        return out


def _model(opened: Envelope, data: bytes) -> ModelArrived:
    if opened.sender.tier != "cloud":
        raise BadModel(f"a model signed by {opened.sender}; only the cloud may release one")
    model = wire.decode(opened.kind, opened.body)
    if not isinstance(model, wire.Model):
        raise BadModel(f"a {type(model).__name__} in the place of a model")
    return ModelArrived(model, data)
