"""Sections about rounds: who is waited for, how long, and when the cloud stops."""

from typing import Literal, Self

from pydantic import Field, model_validator

from edgechoir.config.sections import Section


class Rounds(Section):
    """How this aggregator runs the rounds of the members below it."""

    min_members: int = Field(
        default=2,
        ge=2,
        le=32,
        description="A round with fewer survivors fails and nothing is revealed.",
    )
    max_members: int = Field(default=32, ge=2, le=32, description="Members in one cohort at most.")
    expected_members: int | None = Field(
        default=None,
        ge=2,
        le=32,
        description="A cohort forms at once when so many are there.",
        examples=[4],
    )
    join_wait_s: float = Field(
        default=5.0,
        ge=0,
        le=3600,
        description="Seconds to wait for more members before a cohort forms.",
    )
    keystream: Literal["auto", "aes-256-ctr", "chacha20"] = Field(
        default="auto",
        description="The cipher that expands the masks. auto: AES if this processor has "
        "instructions for it; where the members' have none, chacha20 is several times faster.",
    )

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        if self.min_members > self.max_members:
            raise ValueError(
                f"min_members is {self.min_members} and max_members {self.max_members}: "
                "min_members must not be larger"
            )
        return self


class CloudRounds(Rounds):
    """How the root runs the rounds, and when it stops."""

    rounds: int | None = Field(
        default=None,
        ge=1,
        description="Stop after this many rounds; without it, go on.",
        examples=[20],
    )
    target_accuracy: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Stop when the accuracy reaches this.",
        examples=[0.95],
    )
    target_rmse: float | None = Field(
        default=None,
        gt=0,
        description="Stop when the root mean squared error of a regression falls to this.",
        examples=[15.0],
    )
    patience: int | None = Field(
        default=None,
        ge=1,
        description="Stop when the loss has not fallen for this many rounds.",
        examples=[5],
    )
    min_gain: float = Field(
        default=1e-3, ge=0, le=1e6, description="By how much it must fall to count as fallen."
    )
    release: Literal["last", "best"] = Field(
        default="last",
        description="Which version is released at the end: the last, or the one that did best on "
        "the rows held out, after a last round that measures the last.",
    )
    diverged_factor: float = Field(
        default=10.0,
        gt=1,
        le=1e9,
        description="A loss above so many times the lowest is a sign of divergence.",
    )
    diverged_rounds: int = Field(
        default=3,
        ge=1,
        le=1000,
        description="After so many such rounds in a row, go on from the best version, at half the "
        "step size.",
    )
    deadline_s: float = Field(
        default=60.0,
        gt=0,
        le=86400,
        description="Seconds that a round may take; each tier below gives its own members less.",
    )
    pause_s: float = Field(default=0.0, ge=0, le=86400, description="Seconds between two rounds.")
