"""The aggregation rule of a run, and its settings."""

from typing import Any, Literal

from pydantic import Field

from edgechoir.config.sections import Section


class FedAvgRule(Section):
    """How the root makes the next model of the mean update."""

    name: Literal["fedavg"] = Field(
        default="fedavg", description="fedavg: add the mean of the updates, weighted by samples."
    )
    rate: float = Field(default=1.0, gt=0, le=100, description="The mean is multiplied by this.")

    def options(self) -> dict[str, Any]:
        """The settings without the name."""
        return self.model_dump(exclude={"name"})


AnyRule = FedAvgRule
