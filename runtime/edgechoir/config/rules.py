"""The aggregation rule of a run, and its settings. `docs/learning.md` says when to use which."""

from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import Field

from edgechoir.config.sections import CloudUpdate, Place, Section
from edgechoir.config.training import CloudTraining

Rate = Annotated[float, Field(gt=0, le=100)]
Decay = Annotated[float, Field(ge=0, lt=1)]


class Rule(Section):
    """What every rule has."""

    TAG: ClassVar[str] = "name"
    PRIVATE: ClassVar[bool] = True
    """Whether noise on an update makes all that a device sends private."""
    ROBUST: ClassVar[bool] = True
    """Whether it goes on from any estimate of the mean update, not from the mean alone."""

    ALIKE: ClassVar[bool] = True
    """Whether runs may begin alike, one after the other: none leaves anything on devices."""

    def options(self, training: CloudTraining, update: CloudUpdate) -> dict[str, Any]:
        """What the rule is made with: its settings without the name, and what it has to know of
        the others."""
        return self.model_dump(exclude={"name"})

    def misfit(self, training: CloudTraining, update: CloudUpdate) -> str:
        """Why it does not go with the other settings; nothing where it does."""
        return ""


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

    def misfit(self, training: CloudTraining, update: CloudUpdate) -> str:
        """One proximal term is enough."""
        if training.proximal:
            return "it has a proximal term already, mu: leave training.proximal out"
        return ""


class ScaffoldRule(Rule):
    """Control variates: devices correct each step by how their data differ from all."""

    PRIVATE: ClassVar[bool] = False
    ROBUST: ClassVar[bool] = False
    ALIKE: ClassVar[bool] = False

    name: Literal["scaffold"] = Field(default="scaffold", description="The rule.")
    rate: Rate = Field(default=1.0, description="The mean is multiplied by this.")
    leak: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="How fast an error in the control variate dies out; 0: never, as published.",
    )

    def options(self, training: CloudTraining, update: CloudUpdate) -> dict[str, Any]:
        """A change travels as large as one step makes it."""
        return {**Rule.options(self, training, update), "scale": training.learning_rate}

    def misfit(self, training: CloudTraining, update: CloudUpdate) -> str:
        """The mean gradient on the way is read off a device's update, so plain SGD made it."""
        for name in ("momentum", "proximal"):
            if getattr(training, name):
                return f"it takes a device's steps for plain gradients: leave training.{name} out"
        return _too_coarse(update)


class FedNovaRule(Rule):
    """Updates count per step, so that devices with more data or epochs do not pull harder."""

    PRIVATE: ClassVar[bool] = False
    ROBUST: ClassVar[bool] = False

    name: Literal["fednova"] = Field(default="fednova", description="The rule.")
    rate: Rate = Field(default=1.0, description="The mean is multiplied by this.")
    most: float = Field(
        default=10_000.0,
        ge=1,
        le=1e6,
        description="Local steps of a device that count at most; fewer make the code finer.",
    )

    def options(self, training: CloudTraining, update: CloudUpdate) -> dict[str, Any]:
        """It reads the steps out of a clipped coordinate; an epoch has one at least."""
        beside = {"clip": update.clip, "unit": training.epochs}
        return {**Rule.options(self, training, update), **beside}

    def misfit(self, training: CloudTraining, update: CloudUpdate) -> str:
        """An update divided by its steps needs the wide ring."""
        return _too_coarse(update)


class DittoRule(Rule):
    """FedAvg; each device trains a model of its own beside it, which answers where it is better."""

    ALIKE: ClassVar[bool] = False

    name: Literal["ditto"] = Field(default="ditto", description="The rule.")
    pull: float = Field(
        default=0.1, gt=0, le=1000, description="How strongly own models are pulled to the global."
    )
    rate: Rate = Field(default=1.0, description="The mean is multiplied by this.")


class DistilRule(Rule):
    """Devices with models of any shape learn from their mean answers on a shared set."""

    PRIVATE: ClassVar[bool] = False
    ROBUST: ClassVar[bool] = False
    ALIKE: ClassVar[bool] = False

    name: Literal["distil"] = Field(default="distil", description="The rule.")
    shared: Place = Field(
        description="NPZ file with the shared samples, x; devices have the same as training.shared."
    )
    weight: float = Field(default=1.0, gt=0, le=1000, description="Of the teacher's word.")
    temperature: float = Field(
        default=2.0, gt=0, le=100, description="Softens the teacher's answers."
    )

    def options(self, training: CloudTraining, update: CloudUpdate) -> dict[str, Any]:
        """All but the file, which whoever makes the rule has read."""
        return self.model_dump(exclude={"name", "shared"})

    def misfit(self, training: CloudTraining, update: CloudUpdate) -> str:
        """There is no update to bound or to pull."""
        if update.max_norm:
            return "it sends answers, no update: leave update.max_norm out"
        if training.proximal:
            return "there is no global model to pull to: leave training.proximal out"
        if training.normalise:
            return "each model prepares its samples itself: leave training.normalise out"
        if update.clip < LEAST_CLIP:
            return (
                f"answers are logits or values, which a clip of {update.clip:g} cuts: set "
                f"update.clip to {LEAST_CLIP:g} or more"
            )
        return ""


LEAST_CLIP: Final = 5.0


class TreesRule(Rule):
    """Gradient boosting of the bundle's trees, from masked histograms of gradients."""

    PRIVATE: ClassVar[bool] = False
    ROBUST: ClassVar[bool] = False
    ALIKE: ClassVar[bool] = False

    name: Literal["trees"] = Field(default="trees", description="The rule.")
    rate: float = Field(default=0.1, gt=0, le=1, description="Weight of each tree.")
    l2: float = Field(default=1.0, ge=0, le=1e6, description="Added to a leaf's hessians.")
    min_rows: int = Field(default=20, ge=1, description="Rows of a leaf, over all devices.")
    bins: int = Field(default=64, ge=2, le=256, description="Bins of a column.")

    def misfit(self, training: CloudTraining, update: CloudUpdate) -> str:
        """It bins raw columns, finely."""
        if training.normalise:
            return "its bins follow the columns as they are: leave training.normalise out"
        return _too_coarse(update)


def _too_coarse(update: CloudUpdate) -> str:
    if update.ring_bits < 32:
        return f"a ring of {update.ring_bits} bits is too coarse for it: set update.ring_bits = 32"
    return ""


AnyRule = Annotated[
    FedAvgRule
    | FedAvgMRule
    | FedAdamRule
    | FedYogiRule
    | FedAdagradRule
    | FedProxRule
    | ScaffoldRule
    | FedNovaRule
    | DittoRule
    | DistilRule
    | TreesRule,
    Field(discriminator="name"),
]
