"""A lying aggregator that tries to read one member's vector out of everything it sees.

It holds its own keys, all messages of its members, and the secrets of members that collude with it.
What it may say is its own affair: any roster, any plan to anybody, any survivor set. What it has
learnt is put together in `open_smallest`: the shares it holds, the secrets and leaves they give,
and the smallest sum with the victim in it that they lay bare.

Theory: an uploaded vector is y_u = q_u + PRG(b_u) + sum over v in its cohort of +-PRG(s_uv). Call u
and v bound where s_uv is not known. A sum over a set comes open only if the set is closed under
this bond, every b in it is known, and everyone in it has uploaded for the same context; so the
smallest such set is all that hangs together with the victim. One member in it: the victim is bare.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgechoir import wire
from edgechoir.errors import RemoteError
from edgechoir.identity.envelope import Signer
from edgechoir.rounds.agreement import make_consent, make_receipt
from edgechoir.rounds.cohort import masked_vector, open_upload
from edgechoir.rounds.epoch import answer_info, encoding_of, places_of, roster_hash, round_context
from edgechoir.secagg.boxes import commitment, open_box, open_escrow
from edgechoir.secagg.chains import SECRET_BYTES, Chain, pad_seed, pair_chain
from edgechoir.secagg.masking import sign
from edgechoir.secagg.pads import Keystream, add_pads
from edgechoir.secagg.sealing import KemKey, new_kem_key, seal, unseal
from edgechoir.secagg.shamir import combine
from edgechoir.secagg.threshold import colluders as tolerated
from edgechoir.secagg.threshold import threshold
from edgechoir.sim.chance import entropy_of
from edgechoir.sim.choir import FEDERATION, MODEL, NOW, PARENT, Choir, identity_of
from edgechoir.types import Ring

_PLAN: dict[str, Any] = {
    "round": 1,
    "bits": 32,
    "model_version": 1,
    "model_hash": MODEL,
    "task": b'{"kind":"train"}',
    "dimension": 8,
    "devices": 32,
    "clip": 1.0,
    "max_samples": 10,
    "epochs": 1,
    "batch_size": 8,
    "learning_rate": 0.1,
    "seed": 0,
    "deadline": 8.0,
}


@dataclass(frozen=True, slots=True)
class Heard:
    """An upload as its reader sees it."""

    context: bytes
    vector: Ring
    receipt: bytes


@dataclass(frozen=True, slots=True)
class Bare:
    """A sum laid open against the will of its members."""

    members: frozenset[str]
    vector: Ring


class LyingAggregator:
    """Drives the members of `choir`; `colluders` among them tell it everything they know."""

    def __init__(self, choir: Choir, colluders: Collection[str] = ()) -> None:
        self.choir = choir
        self.colluders = frozenset(colluders)
        self.entropy = entropy_of(choir.seed, "lying aggregator")
        me = identity_of(PARENT.tier, str(PARENT.member))
        self.signer = Signer(me.key, me.certificate, self.entropy(8))
        self.sequence = 0
        self.kem: KemKey = new_kem_key(self.entropy)
        self.epoch = 0
        self.names: tuple[str, ...] = ()
        self.threshold = 0
        self.roster = b""
        self.keystream = Keystream.AES
        self.joins: dict[str, bytes] = {}
        self.bundles: dict[str, dict[str, bytes]] = {}
        self.stolen: dict[str, Mapping[str, Chain]] = {}
        """The pair chains, from turn 1 on, of whoever's secrets are known."""
        self.prepared: dict[tuple[int, str], wire.Prepare] = {}
        self.plans: dict[bytes, wire.Plan] = {}
        self.heard: dict[str, dict[bytes, Heard]] = defaultdict(dict)
        self.consents: dict[tuple[bytes, tuple[str, ...]], dict[str, bytes]] = defaultdict(dict)
        self.asked: dict[bytes, tuple[str, ...]] = {}
        self.shares: dict[tuple[str, int, str], dict[str, bytes]] = defaultdict(dict)
        """By kind ("b" or "K"), turn and owner: the shares, by who gave them."""

    # ---- what it says

    def tell(self, names: Iterable[str], message: wire.Message) -> None:
        """Say this to some members, and listen to what they say to it."""
        for name in names:
            self.sequence += 1
            data = self.signer.wrap(message.KIND, wire.encode(message), self.sequence)
            for answer in self.choir.tell(name, data):
                self.listen(answer)

    def gather(self) -> None:
        """Let all members ask for a place."""
        for name in sorted(self.choir.singers):
            for data in self.choir.begin(name):
                self.listen(data)

    def found(self, **lies: Any) -> None:
        """Publish a roster of all who asked, and hand over their bundles."""
        self.epoch += 1
        self.names = tuple(sorted(self.joins))
        n = len(self.names)
        one_in = self.choir.policy.colluders_one_in
        roster = wire.Roster(
            epoch=self.epoch,
            threshold=threshold(n, tolerated(n, one_in)),
            keystream=0,
            kem=self.kem.public,
            joins=tuple(self.joins[name] for name in self.names),
        )
        roster = replace(roster, **lies)
        self.threshold = roster.threshold
        self.keystream = list(Keystream)[roster.keystream]
        self.roster = roster_hash(FEDERATION, PARENT, roster)
        self.tell(self.choir.singers, roster)
        for reader in self.choir.singers:
            self.hand_over(reader)

    def hand_over(self, reader: str) -> None:
        """Deliver to one member what the others sealed to it."""
        sealed = tuple(
            (by, boxes[reader]) for by, boxes in sorted(self.bundles.items()) if reader in boxes
        )
        self.tell([reader], wire.Delivery(self.epoch, self.roster, sealed))
        if reader in self.colluders:
            self.stolen[reader] = dict(self.choir.singers[reader].up.chains)

    def plan(self, turn: int = 1, **lies: Any) -> wire.Plan:
        """A plan for everybody, with whatever lies are wanted."""
        honest = {
            **_PLAN,
            "round": turn,
            "epoch": self.epoch,
            "turn": turn,
            "roster": self.roster,
            "min_survivors": min(self.threshold, 255),
            "cohort": self.names,
        }
        plan = wire.Plan(**{**honest, **lies})
        self.plans[self.context(plan)] = plan
        return plan

    def context(self, plan: wire.Plan) -> bytes:
        return round_context(FEDERATION, PARENT, plan)

    def call(self, names: Iterable[str], plan: wire.Plan) -> None:
        """Show this plan to some members."""
        for name in names:
            boxes = [
                (by, box)
                for by in self.names
                if (plan.turn, by) in self.prepared
                for reader, box in self.prepared[plan.turn, by].boxes
                if reader == name
            ]
            self.tell([name], wire.Call(wire.encode(plan), tuple(boxes)))

    def ask_consent(
        self, names: Iterable[str], plan: wire.Plan, survivors: Iterable[str]
    ) -> wire.Reveal:
        """Ask some members to sign this survivor set; colluders sign anything."""
        context, chosen = self.context(plan), tuple(sorted(survivors))
        self.asked[context] = chosen
        receipts = tuple(self.receipt(name, context) for name in chosen)
        reveal = wire.Reveal(plan.epoch, plan.turn, context, chosen, receipts, ())
        if chosen != plan.cohort:
            self.tell(names, reveal)
            for colluder in self.colluders & set(plan.cohort):
                key = self.choir.singers[colluder].identity.key
                self.consents[context, chosen][colluder] = make_consent(key, context, chosen)
        consents = tuple(sorted(self.consents[context, chosen].items()))
        return replace(reveal, consents=consents)

    def reveal(self, names: Iterable[str], plan: wire.Plan, survivors: Iterable[str]) -> None:
        """Ask some members to open this sum: for their consent first, then with all there is."""
        names = tuple(names)
        self.tell(names, self.ask_consent(names, plan, survivors))

    def receipt(self, name: str, context: bytes) -> bytes:
        """A member's receipt for a context, as far as there is one."""
        if name in self.colluders:
            return make_receipt(self.choir.singers[name].identity.key, context)
        heard = self.heard[name]
        for known in (heard.get(context), *heard.values()):
            if known is not None:
                return known.receipt
        return bytes(64)

    # ---- what it hears

    def listen(self, data: bytes) -> None:
        """Take in a member's message, and keep all that can be read in it."""
        opened = self.choir.verifier.open(data, NOW)
        name = str(opened.sender.member)
        message = wire.decode(opened.kind, opened.body)
        match message:
            case wire.Join(renew=0):
                self.joins[name] = data
            case wire.Bundles(sealed=sealed):
                self.bundles[name] = dict(sealed)
            case wire.Prepare():
                self.prepared[message.turn, name] = message
            case wire.Upload(context=context, receipt=receipt):
                contents = open_upload(self.kem, message, name)
                left = wire.decode_as(wire.Prepare, contents.prepare)
                self.prepared[left.turn, name] = left
                vector = masked_vector(contents, encoding_of(self.plans[context]), name)
                self.heard[name][context] = Heard(context, vector, receipt)
            case wire.Consent(context=context, signature=signature):
                self.consents[context, self.asked[context]][name] = signature
            case wire.Answer(turn=turn, context=context, sealed=sealed):
                inside = unseal(self.kem, sealed, answer_info(context, name))
                for owner, share in wire.decode_as(wire.Opened, inside).shares:
                    kind = "b" if owner in self.asked[context] else "K"
                    self.shares[kind, turn, owner][name] = share
            case _:
                pass

    # ---- what it makes of it

    def secret(self, kind: str, turn: int, owner: str) -> bytes | None:
        """A member's b or K of a turn, if enough shares of it are known."""
        left = self.prepared.get((turn, owner))
        if left is None:
            return None
        known = dict(self.shares[kind, turn, owner])
        boxes = dict(left.boxes)
        for thief, chains in self.stolen.items():
            if owner in chains and thief in boxes:
                shares = open_box(owner, thief, chains[owner].at(turn), boxes[thief])
                known[thief] = shares.b if kind == "b" else shares.k
        places = places_of(self.names)
        chosen = {places[by]: known[by] for by in sorted(known)[: self.threshold]}
        if len(chosen) < self.threshold:
            return None
        try:
            secret = combine(chosen)
        except RemoteError:
            return None
        committed = left.commit_b if kind == "b" else left.commit_k
        return secret if commitment(kind.encode(), secret) == committed else None

    def leaf(self, turn: int, one: str, other: str) -> bytes | None:
        """The secret of a pair in a turn, if either's chain or either's K is known."""
        for a, b in ((one, other), (other, one)):
            if a in self.stolen and b in self.stolen[a]:
                return self.stolen[a][b].at(turn).leaf()
            k = self.secret("K", turn, a)
            if k is not None:
                left = self.prepared[turn, a]
                leaves = open_escrow(k, left.escrow, [reader for reader, _ in left.boxes])
                if b in leaves:
                    return leaves[b]
        return None

    def open_smallest(self, victim: str) -> Bare | None:
        """The smallest sum with the victim in it that can be laid bare."""
        found = [self._open(victim, context) for context in self.heard[victim]]
        return min(
            (bare for bare in found if bare), key=lambda bare: len(bare.members), default=None
        )

    def _open(self, victim: str, context: bytes) -> Bare | None:
        plan = self.plans[context]
        bound, todo = {victim}, [victim]
        pads: list[tuple[bytes, int]] = []
        while todo:
            one = todo.pop()
            own = self.own_pad(plan.turn, one, context)
            if own is None or context not in self.heard[one]:
                return None
            pads += own
            for other in plan.cohort:
                if other == one:
                    continue
                leaf = self.leaf(plan.turn, one, other)
                if leaf is not None:
                    pads.append((pad_seed(leaf, context), -sign(one, other)))
                elif other not in bound:
                    bound.add(other)
                    todo.append(other)
        total: Ring = np.zeros_like(self.heard[victim][context].vector)
        for one in bound:
            total += self.heard[one][context].vector
        out: Ring = total.copy()
        add_pads(out, pads, self.keystream)
        return Bare(frozenset(bound), out)

    def own_pad(self, turn: int, one: str, context: bytes) -> list[tuple[bytes, int]] | None:
        """What takes a member's self-mask off, if its b is known."""
        b = self.secret("b", turn, one)
        return None if b is None else [(pad_seed(b, context), -1)]

    # ---- keys that are not what they seem

    def swap_keys(self, names: Iterable[str]) -> dict[str, KemKey]:
        """Put keys of its own into the Joins of some members; their signatures fit no more."""
        forged: dict[str, KemKey] = {}
        for name in names:
            forged[name] = new_kem_key(self.entropy)
            opened = self.choir.verifier.open(self.joins[name], NOW)
            join = wire.decode(opened.kind, opened.body)
            if not isinstance(join, wire.Join):
                raise TypeError("expected a Join")
            self.joins[name] = self.joins[name].replace(join.kem, forged[name].public)
        return forged

    def impersonate(self, victim: str, forged: Mapping[str, KemKey]) -> None:
        """Talk to the victim as all the others, with the keys it took for theirs."""
        opened = self.choir.verifier.open(self.joins[victim], NOW)
        join = wire.decode(opened.kind, opened.body)
        if not isinstance(join, wire.Join) or victim not in self.bundles:
            return
        sealed = []
        for name, key in sorted(forged.items()):
            info = _bundle_info(self.roster, victim, name)
            theirs = unseal(key, self.bundles[victim][name], info)[:SECRET_BYTES]
            mine = self.entropy(SECRET_BYTES)
            box = seal(join.kem, mine + bytes(64), _bundle_info(self.roster, name, victim))
            sealed.append((name, box))
            self.stolen[name] = {victim: pair_chain(mine, theirs, name, victim, self.roster)}
        self.tell([victim], wire.Delivery(self.epoch, self.roster, tuple(sealed)))


def _bundle_info(roster: bytes, sender: str, reader: str) -> bytes:
    return b"edgechoir bundle\0" + roster + sender.encode() + b"\0" + reader.encode() + b"\0"
