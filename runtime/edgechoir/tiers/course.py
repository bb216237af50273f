"""From a cloud's configuration to the course of its run and the rule that it follows."""

import math
import os
from typing import Final

from edgechoir.bundle.load import Bundle
from edgechoir.config.rules import DistilRule
from edgechoir.config.tiers import CloudConfig
from edgechoir.errors import OperatorError
from edgechoir.learning.rates import Rates
from edgechoir.learning.rules.choose import make_rule
from edgechoir.learning.rules.compressed import make_compressed
from edgechoir.learning.rules.distil import shared_hash
from edgechoir.learning.rules.private import make_private
from edgechoir.learning.rules.robust import make_robust
from edgechoir.learning.rules.rule import Rule
from edgechoir.learning.rules.trees import Trees
from edgechoir.rounds.schedule import Course
from edgechoir.tiers.distil import read_shared
from edgechoir.tiers.trees import layout_of

FOREVER: Final = 2**31


def fitted_to(rule: Rule, bundle: Bundle) -> Rule:
    """The rule, told of the bundle's forest. Raises OperatorError where they do not go together."""
    forest = bundle.manifest.trees is not None
    if isinstance(rule, Trees) != forest:
        raise OperatorError(
            f"{bundle.manifest.name} is {'a' if forest else 'no'} forest: that goes with the rule "
            f"{'trees, and no other' if forest else 'of a network, not with trees'}"
        )
    return rule.of(layout_of(bundle.manifest)) if isinstance(rule, Trees) else rule


def course_of(config: CloudConfig, bundle: Bundle) -> Course:
    """Raises OperatorError for a target that the model cannot have."""
    rounds, training, update = config.rounds, config.training, config.update
    classifies = bundle.manifest.task == "classification"
    if rounds.target_accuracy is not None and not classifies:
        raise OperatorError(
            f"{bundle.manifest.name} is a {bundle.manifest.task}: it has no accuracy to reach; "
            "leave rounds.target_accuracy out, and stop it by rounds, target_rmse or patience"
        )
    if rounds.target_rmse is not None and classifies:
        raise OperatorError(
            f"{bundle.manifest.name} is a classification: it has no RMSE to reach; set "
            "rounds.target_accuracy"
        )
    return Course(
        rounds=rounds.rounds or FOREVER,
        deadline=rounds.deadline_s,
        pause=rounds.pause_s,
        target_accuracy=rounds.target_accuracy,
        target_rmse=rounds.target_rmse,
        patience=rounds.patience,
        min_gain=rounds.min_gain,
        # Half a forest is no place to go back to and learn on from.
        diverged_factor=math.inf if config.rule.name == "trees" else rounds.diverged_factor,
        diverged_rounds=rounds.diverged_rounds,
        release=rounds.release,
        epochs=training.epochs,
        batch_size=training.batch_size,
        learning_rate=training.learning_rate,
        rates=Rates(
            training.schedule, rounds.rounds or FOREVER, training.decay_every, training.decay
        ),
        local={**training.local(), **({"max_norm": update.max_norm} if update.max_norm else {})},
        clip=update.clip,
        max_samples=update.max_samples,
        bits=update.ring_bits,
        seed=int.from_bytes(os.urandom(4)),
        classifies=classifies,
    )


def rule_of(config: CloudConfig, bundle: Bundle) -> Rule:
    """The rule with what is wrapped around it. Raises OperatorError."""
    training, update = config.training, config.update
    options = config.rule.options(training, update)
    if isinstance(config.rule, DistilRule):
        x = read_shared(config.rule.shared, bundle.manifest.input_shape)
        options |= {"size": len(x) * len(bundle.manifest.outputs), "shared": shared_hash(x)}
    rule = make_rule(config.rule.name, options)
    rule = fitted_to(rule, bundle)
    if config.privacy is not None:
        privacy = config.privacy.model_dump(exclude={"noise"})
        rule = make_private(rule, {"z": config.privacy.noise, **privacy})
    if update.compresses():
        code = update.model_dump(include={"rotate", "sent_share", "clipped_share"})
        rule = make_compressed(rule, {"seed": int.from_bytes(os.urandom(4)), **code})
    if config.robust is not None:
        rule = make_robust(rule, config.robust.model_dump())
    return rule
