"""What can go wrong, and how much of it a seed brings."""

from dataclasses import dataclass

from edgechoir.sim.chance import chance_of


@dataclass(frozen=True, slots=True)
class Faults:
    """Probabilities per message, rates per second of virtual time, delays in seconds."""

    loss: float
    duplication: float
    delay: tuple[float, float]
    crashes: float
    freezes: float
    until: float
    """Faults stop here: from then on the system must get through rounds again."""


def faults_of(seed: int, until: float) -> Faults:
    """Every fourth seed is calm; the others mix faults of different strength."""
    chance = chance_of(seed, "faults")
    if seed % 4 == 0:
        return Faults(0.0, 0.0, (0.001, 0.05), 0.0, 0.0, 0.0)
    return Faults(
        loss=chance.choice([0.0, 0.01, 0.05, 0.15]),
        duplication=chance.choice([0.0, 0.05, 0.3]),
        delay=(0.001, chance.choice([0.02, 0.3, 3.0])),
        crashes=chance.choice([0.0, 0.01, 0.05]),
        freezes=chance.choice([0.0, 0.01, 0.03]),
        until=until,
    )
