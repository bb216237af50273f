"""The aggregation rule of a run, and its settings. `docs/learning.md` says when to use which."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from edgechoir.config.sections import CloudTraining, CloudUpdate, Section

Rate = Annotated[float, Field(gt=0, le=100)]
Decay = Annotated[float, Field(ge=0, lt=1)]


class Rule(Section):
    """What every rule has."""

    TAG: ClassVar[str] = "name"

    def options(self) -> dict[str, Any]:
        """The settings without the name."""
        return self.model_dump(exclude={"name"})


class FedAvgRule(Rule):
    """The mean of the updates is added, weighted by samples."""

    name: Literal["fedavg"] = Field(default="fedavg", description="The rule.")
    rate: Rate = Field(default=1.0, description="The mean is multiplied by this.")


class FedAvgMRule(Rule):
    """FedAvg with momentum at the root."""

    name: Literal["fedavgm"] = Field(default="fedavgm", description="The rule.")
    rate: Rate = Field(default=1.0, description="Step size at the root.")
    momentum: Decay = Field(default=0.9, description="What is left of the last round's direction.")


class Adaptive(Rule):
    """What the rules that scale each weight's step have in common."""

    rate: Rate = Field(default=0.01, description="Step size at the root.")
    beta1: Decay = Field(default=0.9, description="Decay of the mean update.")
    tau: float = Field(
        default=1e-3, gt=0, le=1, description="Added to the divisor: the larger, the less adaptive."
    )
    correct_bias: bool = Field(
        default=False, description="Make up for the mean update's beginning at zero."
    )


class FedAdamRule(Adaptive):
    """Steps divided by the root of a decaying mean of squared mean updates."""

    name: Literal["fedadam"] = Field(default="fedadam", description="The rule.")
    beta2: Decay = Field(default=0.99, description="Decay of the mean square.")


class FedYogiRule(Adaptive):
    """As fedadam, with a mean square that changes by a bounded amount in a round."""

    name: Literal["fedyogi"] = Field(default="fedyogi", description="The rule.")
    beta2: Decay = Field(default=0.99, description="Decay of the mean square.")


class FedAdagradRule(Adaptive):
    """Steps divided by the root of the sum of all squared mean updates."""

    name: Literal["fedadagrad"] = Field(default="fedadagrad", description="The rule.")
    beta1: Decay = Field(default=0.0, description="Decay of the mean update.")


class FedProxRule(Rule):
    """FedAvg; devices pay for moving away from the global model."""

    name: Literal["fedprox"] = Field(default="fedprox", description="The rule.")
    mu: float = Field(default=0.01, gt=0, le=1000, description="Weight of the proximal term.")
    rate: Rate = Field(default=1.0, description="The mean is multiplied by this.")


AnyRule = Annotated[
    FedAvgRule | FedAvgMRule | FedAdamRule | FedYogiRule | FedAdagradRule | FedProxRule,
    Field(discriminator="name"),
]


def misfit(rule: AnyRule, training: CloudTraining, update: CloudUpdate) -> str:
    """Why a rule does not go with the other settings; nothing where it does."""
    if isinstance(rule, FedProxRule) and training.proximal:
        return "it has a proximal term already, mu: leave training.proximal out"
    return ""
