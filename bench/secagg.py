"""Secure aggregation against what the machine can do at best, and against Flower's SecAgg+.

The limit is OpenSSL's raw AES-256-CTR keystream of as many bytes as the pads have, plus one pass
over memory for each vector. Flower gets an environment of its own in the user's cache, so that it
is measured in the same run and in turn. All this is work of one thread; its processor time is
taken, so that whatever else the machine does at the time counts as little as it can.
"""

import gc
import os
import subprocess
import sys
import time
import tracemalloc
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from unittest.mock import patch

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR

from bench.cohort import Cohort, nothing_new
from bench.figures import Figure, in_turn
from edgechoir.rounds.cohort import Turn, begin_turn, count_in, lay_bare
from edgechoir.rounds.events import MaskReady
from edgechoir.secagg import pads
from edgechoir.secagg.masking import expand_mask
from edgechoir.secagg.pads import BLOCK_BYTES, Keystream, add_pads
from edgechoir.types import Ring

FLOWER: Final = "flwr==1.42.*"
DIMENSIONS: Final = {1_000_000: "1 M", 10_000_000: "10 M"}
NEIGHBOURS: Final = (10, 31)
WIDTHS: Final = (32, 16)
TURNS: Final = {1_000_000: 15, 10_000_000: 5}
INSTALL_S: Final = 600.0
ZEROS: Final = bytes(BLOCK_BYTES)


def measure() -> list[Figure]:
    figures: list[Figure] = []
    with flower() as theirs:
        for dimension in DIMENSIONS:
            for bits in WIDTHS:
                for neighbours in NEIGHBOURS:
                    figures += _member(dimension, neighbours, bits, theirs)
    for dimension in DIMENSIONS:
        for bits in WIDTHS:
            figures += _sizes(dimension, bits)
    for dimension in DIMENSIONS:
        for neighbours in NEIGHBOURS:
            for missing in (0, (neighbours + 1) // 10):
                figures.append(_aggregator(dimension, neighbours + 1, missing))
    return figures


# ---- a member


def _member(dimension: int, neighbours: int, bits: int, theirs: "Flower | None") -> list[Figure]:
    """Masking as a member does it, from the seeds and with the mask made ahead."""
    dtype = np.dtype(f"u{bits // 8}")
    vector: Ring = np.zeros(dimension, dtype)
    out: Ring = np.zeros(dimension, dtype)
    seeds = tuple((os.urandom(32), 1 if i % 2 else -1) for i in range(neighbours + 1))
    mask = expand_mask(seeds, dimension, dtype, Keystream.AES)

    def masked() -> float:
        return cpu_seconds(lambda: add_pads(vector, seeds, Keystream.AES, out))

    def narrow() -> float:
        with patch.object(pads, "WIDE_AES", False):
            return masked()

    def limit() -> float:
        return cpu_seconds(lambda: keystream(seeds, vector.nbytes)) + cpu_seconds(
            lambda: np.copyto(out, vector)
        )

    def online() -> float:
        return cpu_seconds(lambda: np.add(mask, vector, out=out))

    def flowers() -> float:
        return 0.0 if theirs is None else theirs.seconds(dimension, neighbours)

    ours, plain, best, added, flower_s = in_turn(
        TURNS[dimension], masked, narrow, limit, online, flowers
    )
    what = f"{DIMENSIONS[dimension]}, {neighbours} neighbours, {bits} bits"
    figures = [Figure(f"{what}: masked", ours * 1e3, "ms", "ms, limit", best * 1e3)]
    if pads.WIDE_AES:
        without = f"{what}: without wide AES"
        figures.append(Figure(without, plain * 1e3, "ms", "ms, limit", best * 1e3))
    if theirs is not None:
        figures += [
            Figure(f"{what}: Flower", flower_s * 1e3, "ms", "ms, ours", ours * 1e3),
            Figure(f"{what}: Flower", flower_s * 1e3, "ms", "ms, ours online", added * 1e3),
        ]
    return figures


def cpu_seconds(work: Callable[[], object]) -> float:
    """Processor time of this thread, the system's part for its memory included."""
    began = time.thread_time()
    work()
    return time.thread_time() - began


def keystream(seeds: tuple[tuple[bytes, int], ...], n: int) -> None:
    """`n` bytes for each seed, block by block into one place in the cache."""
    out = bytearray(BLOCK_BYTES)
    for seed, _ in seeds:
        stream = Cipher(AES256(seed), CTR(bytes(16))).encryptor()
        for start in range(0, n, BLOCK_BYTES):
            stream.update_into(ZEROS[: n - start] if n - start < BLOCK_BYTES else ZEROS, out)


def _sizes(dimension: int, bits: int) -> list[Figure]:
    """What an upload weighs, and what memory making it takes, in a cohort of the largest size."""
    cohort = Cohort(NEIGHBOURS[-1] + 1, dimension, bits)
    what = f"{DIMENSIONS[dimension]}, 31 neighbours, {bits} bits"
    figures = []
    for ahead, name in zip((True, False), cohort.devices, strict=False):
        gc.collect()
        tracemalloc.start()
        vector = nothing_new(cohort.plan)
        size = vector.nbytes
        if ahead:
            wanted = cohort.masks[name]
            mask = expand_mask(wanted.seeds, wanted.length, vector.dtype, wanted.keystream)
            cohort.members[name].handle(MaskReady(1, mask), cohort.now)
            del mask
        tracemalloc.reset_peak()
        envelope = cohort.contribute(name, vector)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        if ahead:
            mega = len(envelope) / 1e6
            figures.append(Figure(f"{what}: upload", mega, "MB", "MB, vector", size / 1e6))
        how = "mask made ahead" if ahead else "mask not made ahead"
        figures.append(
            Figure(f"{what}: peak memory, {how}", peak / 1e6, "MB", "MB, vector", size / 1e6)
        )
        del envelope, vector
    return figures


# ---- the aggregator


def _aggregator(dimension: int, size: int, missing: int) -> Figure:
    """Adding up the uploads and taking off what does not cancel, the shares' part included."""
    cohort = Cohort(size, dimension, 32)
    ready = cohort.finish(nothing_new(cohort.plan), missing)
    there = len(ready.survivors)
    spent = there + missing * there
    seeds = tuple((os.urandom(32), 1) for _ in range(spent))
    uploads: list[Ring] = [np.zeros(ready.encoding.length, np.uint32) for _ in range(there)]

    def ours() -> float:
        return cpu_seconds(lambda: _summed(ready, uploads))

    def limit() -> float:
        total: Ring = np.zeros(ready.encoding.length, np.uint32)

        def passes() -> None:
            for upload in uploads:
                np.add(total, upload, out=total)

        return cpu_seconds(lambda: keystream(seeds, total.nbytes)) + cpu_seconds(passes)

    taken, best = in_turn(TURNS[dimension], ours, limit)
    what = f"{DIMENSIONS[dimension]}, sum of {there} of {size}: added and unmasked"
    return Figure(what, taken * 1e3, "ms", f"ms, limit ({spent} pads)", best * 1e3)


def _summed(ready: Turn, uploads: list[Ring]) -> None:
    turn = begin_turn(
        ready.plan,
        ready.context,
        ready.provisions,
        ready.devices,
        ready.roster,
        ready.threshold,
        ready.keystream,
        ready.deadline,
    )
    for name, upload in zip(ready.survivors, uploads, strict=True):
        turn = count_in(turn, name, upload, b"")
    if lay_bare(ready) is None:
        raise AssertionError("the sum does not open")


# ---- Flower


class Flower:
    """A process with Flower's building blocks, which measures itself."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def seconds(self, dimension: int, neighbours: int) -> float:
        asked, said = self._process.stdin, self._process.stdout
        if asked is None or said is None:
            raise AssertionError("the process has no pipes")
        asked.write(f"{dimension} {neighbours}\n")
        asked.flush()
        return float(said.readline())


@contextmanager
def flower() -> Iterator[Flower | None]:
    """Flower in its own environment; None, and a word why, where it cannot be installed."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    home = cache / "edgechoir-bench" / "flower"
    python = home / "bin" / "python"
    try:
        if not (home / "ready").exists():
            venv.create(home, clear=True, with_pip=True)
            install = [str(python), "-m", "pip", "install", "-qqq", FLOWER]
            subprocess.run(install, check=True, timeout=INSTALL_S, stdout=subprocess.DEVNULL)
            (home / "ready").touch()
    except (OSError, subprocess.SubprocessError) as error:
        print(f"Flower is not measured, it cannot be installed: {error}", file=sys.stderr)
        yield None
        return
    script = Path(__file__).with_name("flower_blocks.py")
    with subprocess.Popen(
        [python, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Flower(process)
        if process.stdin is not None:
            process.stdin.close()
