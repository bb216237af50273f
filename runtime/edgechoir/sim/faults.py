"""What can go wrong, and how much of it a seed brings."""

from dataclasses import dataclass

from edgechoir.sim.chance import chance_of


@dataclass(frozen=True, slots=True)
class Faults:
    """Probabilities per message or step, rates per second of virtual time and member, delays in
    seconds.

    Messages are lost, doubled, or `stray`: so late that many sent after them arrive before.
    Processes crash from outside, or are `dying` in the middle of a step; after a crash the disk may
    be one of an older image (`rollbacks`). Links to a parent are cut with all that is beneath.
    Clocks are set by hours. `garbage` is what others send: noise, broken and replayed messages.
    """

    loss: float = 0.0
    duplication: float = 0.0
    delay: tuple[float, float] = (0.001, 0.05)
    stray: float = 0.0
    crashes: float = 0.0
    dying: float = 0.0
    rollbacks: float = 0.0
    freezes: float = 0.0
    cuts: float = 0.0
    departures: float = 0.0
    clock_jumps: float = 0.0
    garbage: float = 0.0
    since: float = 0.0
    until: float = 0.0
    """Faults stop here: from then on the system must get through rounds again."""


def faults_of(seed: int, until: float) -> Faults:
    """Every eighth seed is calm; the others mix faults of different strength."""
    chance = chance_of(seed, "faults")
    if seed % 8 == 0:
        return Faults()
    return Faults(
        loss=chance.choice([0.0, 0.0, 0.01, 0.05]),
        duplication=chance.choice([0.0, 0.05, 0.3]),
        delay=(0.001, chance.choice([0.02, 0.1, 0.4])),
        stray=chance.choice([0.0, 0.01, 0.03]),
        crashes=chance.choice([0.0, 0.002, 0.01]),
        dying=chance.choice([0.0, 0.0, 0.001, 0.004]),
        rollbacks=chance.choice([0.0, 0.5]),
        freezes=chance.choice([0.0, 0.003, 0.01]),
        cuts=chance.choice([0.0, 0.003, 0.01]),
        departures=chance.choice([0.0, 0.003, 0.01]),
        clock_jumps=chance.choice([0.0, 0.003, 0.02]),
        garbage=chance.choice([0.0, 0.1, 1.0]),
        since=chance.choice([0.0, 5.0, 5.0]),
        until=until,
    )
