"""The known answers in vectors/secagg.json hold, so another implementation can check by them."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from edgechoir import wire
from edgechoir.rounds.epoch import roster_hash, round_context
from edgechoir.secagg.chains import pair_chain
from edgechoir.secagg.masking import mask
from edgechoir.secagg.pads import stream
from edgechoir.types import Address, MemberId, Ring

FILE: Final = Path(__file__).parent.parent / "vectors" / "secagg.json"


@dataclass(frozen=True, slots=True)
class Vectors:
    known: dict[str, Any]
    parent: Address
    roster: wire.Roster
    plan: wire.Plan


@pytest.fixture(scope="module")
def vectors() -> Vectors:
    known: dict[str, Any] = json.loads(FILE.read_text())
    roster, plan = known["roster"], known["plan"]
    return Vectors(
        known,
        Address(known["parent"]["tier"], MemberId(known["parent"]["member"])),
        wire.Roster(
            roster["epoch"],
            roster["first_round"],
            bytes.fromhex(roster["kem"]),
            tuple(bytes.fromhex(join) for join in roster["joins"]),
        ),
        wire.Plan(
            **{
                **plan,
                "cohort": tuple(plan["cohort"]),
                "roster": bytes.fromhex(plan["roster"]),
                "model_hash": bytes.fromhex(plan["model_hash"]),
            }
        ),
    )


def ring(values: list[int]) -> Ring:
    return np.array(values, np.uint32)


def test_the_roster_hash_holds(vectors: Vectors) -> None:
    known = vectors.known
    body = wire.encode(vectors.roster)
    assert hashlib.sha256(body).hexdigest() == known["roster_body_sha256"]
    digest = roster_hash(known["federation"], vectors.parent, vectors.roster)
    assert digest.hex() == known["roster_hash"] == known["plan"]["roster"]


def test_the_round_context_holds(vectors: Vectors) -> None:
    known = vectors.known
    assert wire.encode(vectors.plan).hex() == known["plan_body"]
    context = round_context(known["federation"], vectors.parent, vectors.plan)
    assert context.hex() == known["round_context"]


def test_the_chains_seeds_and_pads_hold(vectors: Vectors) -> None:
    known, secrets = vectors.known, vectors.known["secrets"]
    assert len(known["pairs"]) == 3
    for pair in known["pairs"]:
        me, them = pair["members"]
        chain = pair_chain(
            bytes.fromhex(secrets[me][them]),
            bytes.fromhex(secrets[them][me]),
            me,
            them,
            bytes.fromhex(known["roster_hash"]),
            vectors.roster.first_round,
        )
        assert chain.key.hex() == pair["chain_at_first_round"]
        link = chain.at(vectors.plan.round)
        assert link.key.hex() == pair["chain_at_round"]
        seed = link.pad_seed(bytes.fromhex(known["round_context"]))
        assert seed.hex() == pair["pad_seed"]
        assert stream(seed, 10).astype("<u4").tobytes().hex() == pair["pad"]


def test_the_masked_vectors_hold_and_add_up(vectors: Vectors) -> None:
    known = vectors.known
    for me, plain in known["vectors"].items():
        seeds = {
            them: bytes.fromhex(pair["pad_seed"])
            for pair in known["pairs"]
            for them in pair["members"]
            if me in pair["members"] and them != me
        }
        assert mask(ring(plain), me, seeds).tolist() == known["masked"][me]
    sums = [sum(values) % 2**32 for values in zip(*known["vectors"].values(), strict=True)]
    masked = [sum(values) % 2**32 for values in zip(*known["masked"].values(), strict=True)]
    assert masked == sums
