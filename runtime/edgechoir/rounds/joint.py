"""A tier: an Aggregator towards its children joined to a Participant towards its parent.

A device has no lower end and the cloud no upper one; node and edge cloud have both, and what one
end asks for is what the other does: a plan from above becomes an order below, the sum from
below becomes the contribution above, and a failure on either side ends the round on the other.
"""

from collections import deque
from dataclasses import dataclass, replace

from edgechoir import wire
from edgechoir.errors import LocalError
from edgechoir.rounds import aggregator, participant
from edgechoir.rounds.aggregator import Aggregator
from edgechoir.rounds.events import (
    Abandon,
    Back,
    Begin,
    Cancel,
    Contribution,
    Effect,
    Event,
    Gone,
    Membership,
    NoContribution,
    Order,
    Received,
    RoundDone,
    RoundFailed,
    Tick,
    Withdraw,
    Work,
)
from edgechoir.rounds.participant import Participant, Phase
from edgechoir.types import Entropy

HEADROOM = 0.7
"""A tier's own deadline as a share of its parent's: less than the part of it that uploads have
(`aggregator.Limits.collecting`), so that its sum, or its reason, arrives in time."""


@dataclass(frozen=True, slots=True)
class Joint:
    """Both ends of a tier; one of them may be missing."""

    up: Participant | None = None
    down: Aggregator | None = None

    @property
    def wake(self) -> float | None:
        """When the next Tick is due."""
        due = [end.wake for end in (self.up, self.down) if end is not None and end.wake is not None]
        return min(due, default=None)


def step(joint: Joint, event: Event, now: float, entropy: Entropy) -> tuple[Joint, list[Effect]]:
    """Advance by one event; the effects are those left for the host.

    In a tier with both ends the host sees what passes between them too, but has nothing to do about
    it. Raises RemoteError (state unchanged) or LocalError.
    """
    out: list[Effect] = []
    todo: deque[Event] = deque([event])
    while todo:
        for end, passed in _route(joint, todo.popleft()):
            effects: list[Effect]
            if end == "up" and joint.up is not None:
                up, effects = participant.step(joint.up, passed, now, entropy)
                joint = replace(joint, up=up)
            elif end == "down" and joint.down is not None:
                down, effects = aggregator.step(joint.down, passed, now, entropy)
                joint = replace(joint, down=down)
            else:
                raise LocalError(f"{type(passed).__name__} has no end to go to in this tier")
            out += effects
            if joint.up is not None and joint.down is not None:
                todo.extend(_across(joint.up, effects))
                if not todo and _outgrown(joint.up, joint.down):
                    there = aggregator.membership(joint.down)
                    todo.append(Begin(there.devices, there.last_round))
    return joint, out


def shift(joint: Joint, seconds: float) -> Joint:
    """The same, with all that is due moved by so much: for a clock that has been set."""
    up, down = joint.up, joint.down
    if up is not None and up.wake is not None:
        up = replace(up, wake=up.wake + seconds)
    if down is not None:
        wake = down.wake + seconds if down.wake is not None else None
        turn = down.turn and replace(down.turn, deadline=down.turn.deadline + seconds)
        down = replace(down, wake=wake, turn=turn)
    return Joint(up, down)


def _route(joint: Joint, event: Event) -> list[tuple[str, Event]]:
    """Which end an event is for."""
    if isinstance(event, Tick):
        ends = (("up", joint.up), ("down", joint.down))
        return [(name, event) for name, end in ends if end is not None]
    if isinstance(event, Received):
        above = joint.up is not None and event.sender == joint.up.who.parent
        return [("up" if above or joint.down is None else "down", event)]
    below = isinstance(event, Order | Cancel | Gone | Back)
    return [("down" if below else "up", event)]


def _across(up: Participant, effects: list[Effect]) -> list[Event]:
    """What the effects of one end mean to the other."""
    events: list[Event] = []
    for effect in effects:
        match effect:
            case Work(plan):
                events.append(order_of(plan, plan.deadline * HEADROOM))
            case Abandon(round_, reason):
                events.append(Cancel(round_, reason))
            case RoundDone(plan, _, total):
                events.append(Contribution(plan.round, total))
            case RoundFailed(round_, reason):
                events.append(NoContribution(round_, reason))
            case Membership(_, members, devices, last_round):
                if not members and up.phase is not Phase.IDLE:
                    events.append(Withdraw("too few members beneath"))
                elif members and up.phase is Phase.IDLE:
                    events.append(Begin(devices, last_round))
                elif up.turn is not None and up.phase is Phase.WORKING and devices > up.devices:
                    # Its parent would find more devices in the sum than it knows, and drop it all.
                    reason = f"{devices} devices are beneath now, the parent knows {up.devices}"
                    events.append(Cancel(up.turn.plan.round, reason))
            case _:
                pass
    return events


def _outgrown(up: Participant, down: Aggregator) -> bool:
    """Whether more devices are beneath than the parent knows, and this is the time to say so.

    Fewer are no news: the bound they were counted for still holds. While a turn runs it waits.
    """
    return up.phase is Phase.READY and aggregator.membership(down).devices > up.devices


def order_of(plan: wire.Plan, deadline: float) -> Order:
    """The order that carries a plan one tier down, with a deadline of its own.

    Where the root sees the sums of its children apart, the next tier is told so; it makes one sum.
    """
    fields = {name: getattr(plan, name) for name in Order.__slots__}
    apart = wire.ABOVE if plan.apart else wire.TOGETHER
    return replace(Order(**fields), deadline=deadline, apart=apart)
