"""The trace shows an update before and after masking, and is written nowhere unless asked for."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgechoir.rounds.epoch import encoding_of
from edgechoir.tiers.trace import Trace

if TYPE_CHECKING:
    from tests.tiers.conftest import Federation


def test_a_later_vector_replaces_the_one_before(tmp_path: Path) -> None:
    trace = Trace(tmp_path / "trace")
    for value in (1, 2):
        trace.write("true", "dev-1", np.full(5, value, np.uint32))
    assert [path.name for path in (tmp_path / "trace").iterdir()] == ["true-dev-1.npy"]
    np.testing.assert_array_equal(np.load(tmp_path / "trace" / "true-dev-1.npy"), np.full(5, 2))


def test_what_a_node_can_read_of_an_upload_is_not_the_update(federation: Federation) -> None:
    async def trial() -> None:
        folder = federation.folder / "trace"
        async with federation.running() as running:
            node = federation.node("node-1", 2, trace={"directory": str(folder)})
            running.start("node-1", federation.aggregator(node))
            running.start("cloud", federation.aggregator(federation.cloud(2, rounds=1)))
            learners = [federation.learner(f"dev-{i}", "node-1") for i in (1, 2)]
            learners.append(federation.learner("dev-3"))
            for learner in learners:
                running.start(str(learner.config.member), learner.run(federation.open_link))
            await running.rounds(1)
        assert sorted(path.name for path in folder.iterdir()) == [
            "masked-dev-1.npy",
            "masked-dev-2.npy",
        ]
        masked = np.load(folder / "masked-dev-1.npy")
        encoding = encoding_of(learners[0].asked[-1])
        assert masked.shape == (encoding.length,)
        # Every coordinate of the update is the same; behind the mask no two hundred are.
        assert len(np.unique(masked)) > 0.9 * len(masked)
        share = np.count_nonzero(masked >= 2**31) / len(masked)
        assert 0.45 < share < 0.55

    asyncio.run(trial())
