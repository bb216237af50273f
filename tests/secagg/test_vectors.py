"""The known answers in vectors/secagg.json hold, so another implementation can check by them."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from edgechoir import wire
from edgechoir.learning.fixed_point import Encoding, Figures
from edgechoir.rounds.epoch import places_of, roster_hash, round_context
from edgechoir.secagg.boxes import Provision, open_box, open_escrow, provide
from edgechoir.secagg.chains import Chain, pad_seed, pair_chain
from edgechoir.secagg.masking import expand_mask, mask_seeds, sum_seeds
from edgechoir.secagg.pads import Keystream, add_pads
from edgechoir.secagg.shamir import combine, split
from edgechoir.types import Address, MemberId, Ring

FILE: Final = Path(__file__).parent.parent / "vectors" / "secagg.json"
Width = np.dtype[np.uint16] | np.dtype[np.uint32]
RINGS: Final[dict[str, Width]] = {"16": np.dtype(np.uint16), "32": np.dtype(np.uint32)}


@dataclass(frozen=True, slots=True)
class Vectors:
    """The file, and what is built from its inputs."""

    known: dict[str, Any]
    parent: Address
    roster: wire.Roster
    plan: wire.Plan
    context: bytes

    @property
    def members(self) -> list[str]:
        return list(self.known["secrets"])

    def link(self, me: str, them: str) -> Chain:
        """The chain of a pair at the turn of the plan."""
        secrets = self.known["secrets"]
        mine, theirs = (bytes.fromhex(secrets[a][b]) for a, b in ((me, them), (them, me)))
        return pair_chain(mine, theirs, me, them, self.plan.roster).at(self.plan.turn)

    def links(self, me: str) -> dict[str, Chain]:
        return {them: self.link(me, them) for them in self.members if them != me}

    def provision(self, me: str) -> Provision:
        """What a member leaves, its entropy taken from the file draw by draw."""
        draws = iter([bytes.fromhex(draw) for draw in self.known["provisions"][me]["draws"]])
        places = places_of(self.members)
        made = provide(me, places, self.links(me), self.roster.threshold, lambda n: next(draws))
        assert next(draws, None) is None, "each draw is used, in the order of the file"
        return made


@pytest.fixture(scope="module")
def vectors() -> Vectors:
    known: dict[str, Any] = json.loads(FILE.read_text())
    roster, plan = known["roster"], known["plan"]
    return Vectors(
        known,
        Address(known["parent"]["tier"], MemberId(known["parent"]["member"])),
        wire.Roster(
            roster["epoch"],
            roster["threshold"],
            roster["keystream"],
            bytes.fromhex(roster["kem"]),
            tuple(bytes.fromhex(join) for join in roster["joins"]),
        ),
        wire.Plan(
            **{
                **plan,
                "cohort": tuple(plan["cohort"]),
                "roster": bytes.fromhex(plan["roster"]),
                "model_hash": bytes.fromhex(plan["model_hash"]),
                "task": bytes.fromhex(plan["task"]),
            }
        ),
        bytes.fromhex(known["round_context"]),
    )


def ring(values: list[int], bits: str) -> Ring:
    """Whole numbers modulo 2^bits."""
    if bits == "16":
        return np.array(values).astype(np.uint16)
    return np.array(values).astype(np.uint32)


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


def test_the_chains_leaves_and_keys_hold(vectors: Vectors) -> None:
    assert len(vectors.known["pairs"]) == 3
    for pair in vectors.known["pairs"]:
        low, high = pair["members"]
        secrets = vectors.known["secrets"]
        first = pair_chain(
            bytes.fromhex(secrets[low][high]),
            bytes.fromhex(secrets[high][low]),
            low,
            high,
            vectors.plan.roster,
        )
        assert first.key.hex() == pair["chain_at_turn_1"]
        link = vectors.link(high, low)
        assert link.key.hex() == pair["chain_at_this_turn"]
        assert link.leaf().hex() == pair["leaf"]
        assert link.box_key(low, high).hex() == pair["box_key_low_to_high"]
        assert link.box_key(high, low).hex() == pair["box_key_high_to_low"]
        assert pad_seed(link.leaf(), vectors.context).hex() == pair["pad_seed"]


@pytest.mark.parametrize("keystream", Keystream)
@pytest.mark.parametrize("bits", RINGS)
def test_the_pads_hold(vectors: Vectors, keystream: Keystream, bits: str) -> None:
    known = vectors.known["pads"]
    pad: Ring = np.zeros(8, RINGS[bits])
    add_pads(pad, [(bytes.fromhex(known["seed"]), 1)], keystream)
    assert pad.tolist() == known[keystream.value][bits]


def test_the_shares_hold(vectors: Vectors) -> None:
    known = vectors.known["shamir"]
    draws = iter([bytes.fromhex(draw) for draw in known["draws"]])
    shares = split(bytes.fromhex(known["secret"]), known["t"], known["xs"], lambda n: next(draws))
    assert {str(x): share.hex() for x, share in shares.items()} == known["shares"]
    assert combine({x: shares[x] for x in known["xs"][: known["t"]]}).hex() == known["secret"]


def test_what_members_leave_for_a_turn_holds(vectors: Vectors) -> None:
    for me, known in vectors.known["provisions"].items():
        made = vectors.provision(me)
        assert made.turn == vectors.plan.turn
        assert made.b.hex() == known["b"]
        assert {them: box.hex() for them, box in made.boxes} == known["boxes"]
        assert made.escrow.hex() == known["escrow"]
        assert made.commit_b.hex() == known["commit_b"]
        assert made.commit_k.hex() == known["commit_k"]


@pytest.mark.parametrize("bits", RINGS)
def test_the_masked_vectors_hold(vectors: Vectors, bits: str) -> None:
    for me, plain in vectors.known["vectors"].items():
        leaves = {them: link.leaf() for them, link in vectors.links(me).items()}
        seeds = mask_seeds(me, vectors.provision(me).b, leaves, vectors.context)
        mask = expand_mask(seeds, len(plain), RINGS[bits], Keystream.AES)
        values = ring(plain, bits)
        assert (values + mask).tolist() == vectors.known["masked"][bits][me]


@pytest.mark.parametrize("bits", RINGS)
def test_two_answers_lay_the_sum_over_two_survivors_bare(vectors: Vectors, bits: str) -> None:
    """From what has been left and masked alone, as an aggregator and two members would do it."""
    known, (absent, *survivors) = vectors.known, vectors.members
    places = places_of(vectors.members)
    held = {
        reader: {
            owner: vectors.provision(owner).own
            if owner == reader
            else open_box(
                owner,
                reader,
                vectors.link(reader, owner),
                bytes.fromhex(known["provisions"][owner]["boxes"][reader]),
            )
            for owner in vectors.members
        }
        for reader in survivors
    }
    bs = {
        owner: combine({places[reader]: held[reader][owner].b for reader in survivors})
        for owner in survivors
    }
    k = combine({places[reader]: held[reader][absent].k for reader in survivors})
    escrow = bytes.fromhex(known["provisions"][absent]["escrow"])
    leaves = open_escrow(k, escrow, survivors)

    total: Ring = np.zeros(len(known["vectors"][absent]), RINGS[bits])
    for me in survivors:
        total = total + ring(known["masked"][bits][me], bits)
    add_pads(total, sum_seeds(bs, {absent: leaves}, vectors.context))
    plain = np.sum([known["vectors"][me] for me in survivors], axis=0)
    assert total.tolist() == (plain % 2 ** int(bits)).tolist()


@pytest.mark.parametrize("bits", RINGS)
def test_the_fixed_point_code_holds(vectors: Vectors, bits: str) -> None:
    known = vectors.known["fixed_point"]
    shape = (known["dimension"], known["devices"], known["clip"], known["max_samples"])
    encoding = Encoding(*shape, bits=int(bits))
    vector = encoding.encode(
        np.array(known["delta"], np.float32),
        known["n"],
        Figures(known["held_out"], known["correct"], known["loss_sum"]),
        np.array(known["noise"], np.uint32),
    )
    assert vector.tolist() == known["vector"][bits]


def test_the_file_says_how_each_value_is_made(vectors: Vectors) -> None:
    """So that nobody needs this program to check another one."""
    told = " ".join(vectors.known["how"])
    derived = {"roster_hash", "round_context", "pads", "shamir", "provisions", "masked"}
    in_pairs = {"chain_at_turn_1", "chain_at_this_turn", "leaf", "box_key", "pad_seed"}
    left = {"boxes", "escrow", "commit_b", "commit_k"}
    for name in (*derived, *in_pairs, *left, "fixed_point"):
        assert name in told
    for pair in vectors.known["pairs"]:
        assert in_pairs - {"box_key"} <= pair.keys()
