"""A forest as one flat vector, so that it travels, is hashed and is exchanged like any model.

Every tree has the same `depth`, its nodes in the order of a heap: a row at node i goes on to
2i + 1, or to 2i + 2 where x[feature] > threshold. A missing value (NaN) goes left. A node that
splits nothing has the threshold NEVER: all rows go left, and its left-most leaf holds its value.
With several outputs, tree t adds to output t modulo their number.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from edgechoir.types import Floats, Reals, Whole

NEVER: Final = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True)
class Layout:
    """`columns` f of a sample, `outputs` k of the model, `trees` T of `depth` D. Two classes need
    one score, others one for each output."""

    columns: int
    outputs: int
    classifies: bool
    trees: int
    depth: int

    @property
    def scores(self) -> int:
        """Trees grown at a time: scores of a row."""
        return 1 if self.classifies and self.outputs == 2 else self.outputs

    @property
    def nodes(self) -> int:
        """That split, in one tree."""
        return int(2**self.depth - 1)

    @property
    def leaves(self) -> int:
        """Of one tree."""
        return int(2**self.depth)

    @property
    def parameters(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Names and shapes, in the order of the flat vector."""
        inner = (self.trees, self.nodes)
        return (
            ("bias", (self.scores,)),
            ("features", inner),
            ("thresholds", inner),
            ("leaves", (self.trees, self.leaves)),
        )

    def bare(self) -> Floats:
        """The vector [d] of a forest that says nothing yet."""
        d = self.scores + self.trees * (2 * self.nodes + self.leaves)
        w = np.zeros(d, np.float32)
        self.split(w).thresholds[:] = NEVER
        return w

    def split(self, w: Floats) -> "Forest":
        """Views into the vector [d]."""
        parts, at = [], 0
        for _, shape in self.parameters:
            size = int(np.prod(shape))
            parts.append(w[at : at + size].reshape(shape))
            at += size
        return Forest(*parts)

    def sees(self, w: Floats, x: Floats) -> Reals:
        """The model's outputs [n, k] for x [n, f]: logits, or values."""
        s = scores_of(self, w, x)
        return np.concatenate([-s / 2, s / 2], 1) if self.scores != self.outputs else s


@dataclass(frozen=True, slots=True)
class Forest:
    """bias [scores], features and thresholds [T, nodes], leaves [T, leaves]."""

    bias: Floats
    features: Floats
    thresholds: Floats
    leaves: Floats


def scores_of(layout: Layout, w: Floats, x: Floats) -> Reals:
    """bias + the leaves that rows x [n, f] come to: [n, scores]. Trees that say nothing cost
    nothing."""
    forest = layout.split(w)
    out = np.repeat(forest.bias[None].astype(np.float64), len(x), 0)
    for t in np.flatnonzero(forest.leaves.any(1)):
        leaf = at_level(forest, int(t), x, layout.depth)
        out[:, t % layout.scores] += forest.leaves[t][leaf]
    return out


def at_level(forest: Forest, t: int, x: Floats, level: int) -> Whole:
    """Where in a level of tree t each row of x [n, f] is, from 0 at the left: [n]."""
    rows = np.arange(len(x))
    node = np.zeros(len(x), np.int64)
    features = forest.features[t].astype(np.int64)
    for _ in range(level):
        node = 2 * node + 1 + (x[rows, features[node]] > forest.thresholds[t][node])
    within: Whole = node - (2**level - 1)
    return within
