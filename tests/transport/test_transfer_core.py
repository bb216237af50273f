"""Sender and receiver without I/O, over a wire that loses, repeats, delays and reorders."""

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgechoir.errors import LocalError, Malformed
from edgechoir.transport.blobs import Chunks, read_header
from edgechoir.transport.control import (
    Ack,
    Cancel,
    Cause,
    Control,
    Offer,
    Refuse,
    decode,
    encode,
    is_control,
)
from edgechoir.transport.receiver import (
    HOARDING_S,
    KEPT_DONE,
    MAX_WAITING,
    SILENT_S,
    STALLED_S,
    WIDEST,
    Delivered,
    Receiver,
    Reply,
)
from edgechoir.transport.sender import MAX_OPEN, RETRY_LAST, Ended, Outcome, Sender

SMALL = 4096
BODY = len(Chunks(bytes(SMALL * 100), SMALL)[0]) - len(Chunks(b"", SMALL)[0])
K = "up"


def data_of(chunks: int, seed: int = 0) -> bytes:
    return Random(seed).randbytes(chunks * BODY)


@dataclass(slots=True)
class Wire:
    """A sender and a receiver, what is under way between them, and a clock."""

    rng: Random = field(default_factory=lambda: Random(0))
    loss: float = 0.0
    window: int = 8
    places: int = 4
    max_blob: int = 64 * BODY
    now: float = 0.0
    lives: int = 0
    up: list[tuple[str, bytes]] = field(default_factory=list)
    down: list[tuple[str, bytes]] = field(default_factory=list)
    ended: list[Ended] = field(default_factory=list)
    applied: list[list[bytes]] = field(default_factory=list)
    """By life of the receiver."""
    chunks_sent: int = 0
    controls_sent: int = 0
    sender: Sender = field(init=False)
    receiver: Receiver = field(init=False)

    def __post_init__(self) -> None:
        self.restart_sender()
        self.restart_receiver()

    def restart_sender(self) -> None:
        self.sender = Sender(limit=SMALL)

    def restart_receiver(self) -> None:
        self.lives += 1
        self.receiver = Receiver(
            self.lives.to_bytes(8, "big"),
            self.max_blob,
            2 * self.max_blob,
            self.places,
            self.window,
        )
        self.applied.append([])

    def send_all(self) -> None:
        """Put on the wire what the sender has to say."""
        while (parcel := self.sender.next(self.now)) is not None:
            self.up.append((parcel.name.key, parcel.payload))
            self.sender.sent(parcel, self.now)
            self.chunks_sent += not is_control(parcel.payload)
            self.controls_sent += is_control(parcel.payload)

    def hear(self, key: str, payload: bytes) -> None:
        """The receiver takes one message."""
        effects: list[Delivered | Reply] = []
        if is_control(payload):
            effects += self.receiver.take_control(key, decode(payload), self.now)
        else:
            effects += self.receiver.take_chunk(key, payload, self.now)
        self.answer(effects)

    def answer(self, effects: list[Delivered | Reply] | list[Reply]) -> None:
        for effect in effects:
            if isinstance(effect, Delivered):
                self.applied[-1].append(effect.blob)
            else:
                self.down.append((effect.key, effect.payload))

    def listen(self, key: str, payload: bytes) -> None:
        """The sender takes one answer."""
        control = decode(payload)
        assert isinstance(control, Ack | Refuse)
        self.ended += self.sender.receive(key, control, self.now)

    def carry(self, index: int = 0) -> None:
        """Deliver a message of each direction, or lose it, or deliver it and keep a copy."""
        for queue, take in ((self.up, self.hear), (self.down, self.listen)):
            if not queue:
                continue
            place = index % len(queue)
            key, payload = queue[place]
            fate = self.rng.random()
            if fate >= self.loss / 2:  # below: a copy stays
                queue.pop(place)
            if not self.loss / 2 <= fate < self.loss:
                take(key, payload)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.ended += self.sender.tick(self.now)
        self.answer(self.receiver.tick(self.now))

    def settle(self, seconds: float = 1000.0) -> None:
        """Carry all that is said, in order and without loss, for so long a time."""
        end = self.now + seconds
        while self.now < end:
            self.send_all()
            while self.up or self.down:
                self.carry()
                self.send_all()
            wake = self.sender.wake
            if wake is None:
                return
            self.pass_time(max(wake - self.now, 0.001))


def outcomes(wire: Wire) -> list[Outcome]:
    return [ended.outcome for ended in wire.ended]


# ---- whatever happens


@given(
    rng=st.randoms(use_true_random=False),
    sizes=st.lists(st.integers(0, 12), min_size=1, max_size=5),
    loss=st.sampled_from([0.0, 0.05, 0.3, 0.6]),
    steps=st.integers(0, 200),
    window=st.integers(1, 9),
    places=st.integers(1, 3),
)
@settings(max_examples=150, deadline=None)
def test_whatever_is_lost_repeated_reordered_or_restarted_each_blob_is_applied_once(
    rng: Random, sizes: list[int], loss: float, steps: int, window: int, places: int
) -> None:
    wire = Wire(rng, loss, window, places)
    blobs = [data_of(size, seed) + bytes([seed]) for seed, size in enumerate(sizes)]

    def start() -> None:
        for n, blob in enumerate(blobs):
            wire.sender.start(f"{K}{n % 2}", blob, wire.now, wire.now + 1e6)

    start()
    for _ in range(steps):
        wire.send_all()
        wire.carry(rng.randrange(1000))
        if rng.random() < 0.2:
            wire.pass_time(rng.random() * 3)
        if rng.random() < 0.02:
            wire.restart_receiver()
        if rng.random() < 0.02:
            wire.restart_sender()
            start()
        assert wire.receiver.open_blobs <= places
        assert wire.receiver.reserved <= 2 * wire.max_blob
    if not len(wire.sender):
        start()
    wire.loss = 0.0
    wire.settle()
    assert len(wire.sender) == 0
    assert set(outcomes(wire)) == {Outcome.DELIVERED}
    for life in wire.applied:
        assert len(life) == len(set(life))
    assert {blob for life in wire.applied for blob in life} == set(blobs)
    wire.pass_time(SILENT_S)  # copies that came late may have begun a blob again
    assert (len(wire.receiver), wire.receiver.reserved) == (0, 0)


@given(st.integers(1, 60), st.integers(1, 32))
@settings(max_examples=40, deadline=None)
def test_without_loss_each_chunk_goes_once_and_answers_are_few(chunks: int, window: int) -> None:
    wire = Wire(window=window)
    wire.sender.start(K, data_of(chunks), 0.0, 60.0)
    wire.settle()
    assert outcomes(wire) == [Outcome.DELIVERED]
    assert wire.chunks_sent == chunks
    assert wire.controls_sent == (chunks > 1)
    assert wire.now == 0.0
    assert (wire.sender.resent, wire.receiver.duplicates) == (0, 0)


def test_a_small_message_costs_one_chunk_and_one_answer() -> None:
    wire = Wire()
    wire.sender.start(K, b"small", 0.0, 60.0)
    wire.send_all()
    assert len(wire.up) == 1
    wire.hear(*wire.up.pop())
    assert wire.applied == [[b"small"]]
    assert len(wire.down) == 1
    wire.listen(*wire.down.pop())
    assert outcomes(wire) == [Outcome.DELIVERED]
    assert (wire.sender.wake, wire.sender.next(0.0)) == (None, None)


# ---- what is sent again


def test_a_lost_chunk_is_sent_again_at_once_when_later_ones_have_arrived() -> None:
    wire = Wire()
    wire.sender.start(K, data_of(12), 0.0, 60.0)
    wire.send_all()
    wire.carry()  # the offer
    wire.carry()
    wire.send_all()
    lost = wire.up.pop(0)
    wire.settle()
    assert outcomes(wire) == [Outcome.DELIVERED]
    assert wire.now == 0.0
    assert (wire.sender.resent, wire.chunks_sent) == (1, 13)
    assert read_header(lost[1]).index == 0


def test_silence_is_met_with_questions_and_not_with_data() -> None:
    wire = Wire()
    wire.sender.start(K, data_of(12), 0.0, 1000.0)
    wire.send_all()
    wire.carry()
    wire.carry()
    wire.send_all()
    chunks, asks = wire.chunks_sent, wire.controls_sent
    times: list[float] = []
    while wire.now < 100.0:
        wire.up.clear()
        assert wire.sender.wake is not None
        wire.pass_time(wire.sender.wake - wire.now)
        wire.send_all()
        times.append(wire.now)
    assert wire.chunks_sent == chunks
    assert wire.controls_sent == asks + len(times)
    assert times[:5] == [1.0, 3.0, 7.0, 15.0, 30.0]
    assert times[-1] - times[-2] == RETRY_LAST


def test_a_way_that_is_cut_for_a_minute_costs_what_was_under_way() -> None:
    wire = Wire(window=8)
    wire.sender.start(K, data_of(40), 0.0, 900.0)
    for _ in range(15):
        wire.send_all()
        wire.carry()
    while wire.now < 60.0:
        wire.up.clear()
        wire.down.clear()
        wake = min(one for one in (wire.sender.wake, 60.0) if one is not None)
        wire.pass_time(max(wake - wire.now, 0.001))
        wire.send_all()
    wire.settle()
    assert outcomes(wire) == [Outcome.DELIVERED]
    assert wire.applied == [[data_of(40)]]
    assert wire.chunks_sent <= 40 + 8


def test_an_answer_that_was_overtaken_changes_nothing() -> None:
    wire = Wire()
    wire.sender.start(K, data_of(12), 0.0, 60.0)
    wire.send_all()
    wire.carry()
    while len(wire.down) < 3:
        wire.send_all()
        wire.hear(*wire.up.pop(0))
    wire.down.reverse()
    wire.listen(*wire.down.pop(0))
    (transfer,) = wire.sender._open.values()
    have = transfer.have
    while wire.down:
        wire.listen(*wire.down.pop(0))
    assert have == transfer.have != 0
    wire.settle()
    assert outcomes(wire) == [Outcome.DELIVERED]
    assert wire.chunks_sent == 12


def test_an_old_answer_of_a_receiver_that_is_gone_is_not_believed() -> None:
    wire = Wire()
    name = wire.sender.start(K, data_of(12), 0.0, 60.0)

    def say(instance: int, sequence: int, ask: int, have: int) -> int:
        ack = Ack(name.digest, instance.to_bytes(8, "big"), sequence, ask, 4, False, have)
        wire.listen(K, encode(ack))
        return wire.sender._open[name].have

    wire.send_all()
    assert say(1, 1, 1, 0b1111) == 0b1111
    wire.pass_time(20.0)
    wire.send_all()
    assert say(2, 1, 2, 0) == 0
    assert say(1, 2, 1, 0b11111) == 0


def test_a_sender_started_anew_sends_only_what_is_missing() -> None:
    wire = Wire(window=4)
    wire.sender.start(K, data_of(12), 0.0, 60.0)
    wire.send_all()
    for _ in range(6):
        wire.carry()
        wire.send_all()
    wire.up.clear()
    wire.down.clear()
    (blob,) = wire.receiver._blobs.values()
    there = len(blob.bodies)
    assert 0 < there < 12
    wire.restart_sender()
    wire.chunks_sent = 0
    wire.sender.start(K, data_of(12), wire.now, wire.now + 60.0)
    wire.settle()
    assert outcomes(wire) == [Outcome.DELIVERED]
    assert wire.chunks_sent == 12 - there
    assert wire.applied == [[data_of(12)]]


def test_a_receiver_started_anew_gets_everything_and_delivers_once() -> None:
    wire = Wire(window=4)
    wire.sender.start(K, data_of(12), 0.0, 60.0)
    wire.send_all()
    for _ in range(6):
        wire.carry()
        wire.send_all()
    wire.up.clear()
    wire.restart_receiver()
    wire.settle()
    assert outcomes(wire) == [Outcome.DELIVERED]
    assert wire.applied == [[], [data_of(12)]]


def test_a_blob_sent_again_after_it_was_done_is_acknowledged_and_not_applied() -> None:
    wire = Wire()
    for blob in (b"one", data_of(3), b"one", data_of(3)):
        wire.sender.start(K, blob, wire.now, wire.now + 60.0)
        wire.settle()
    assert outcomes(wire) == [Outcome.DELIVERED] * 4
    assert wire.applied == [[b"one", data_of(3)]]


def test_what_is_remembered_as_done_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire()
    for n in range(KEPT_DONE + 1):
        wire.hear(K, Chunks(b"%d" % n, SMALL)[0])
    wire.hear(K, Chunks(b"1", SMALL)[0])
    assert len(wire.applied[0]) == KEPT_DONE + 1
    wire.hear(K, Chunks(b"0", SMALL)[0])  # the first is forgotten
    assert len(wire.applied[0]) == KEPT_DONE + 2
    monkeypatch.setattr("edgechoir.transport.receiver.KEPT_ALL", KEPT_DONE + 1)
    wire.hear("other", Chunks(b"a", SMALL)[0])
    wire.hear("third", Chunks(b"b", SMALL)[0])  # of all, the first key is forgotten
    assert list(wire.receiver._done) == ["other", "third"]
    wire.hear("other", Chunks(b"a", SMALL)[0])
    assert len(wire.applied[0]) == KEPT_DONE + 4


@given(
    rng=st.randoms(use_true_random=False),
    sizes=st.lists(st.integers(0, 3), min_size=1, max_size=12),
    loss=st.sampled_from([0.0, 0.1, 0.5]),
)
@settings(max_examples=60, deadline=None)
def test_the_blobs_of_one_key_arrive_in_their_order(
    rng: Random, sizes: list[int], loss: float
) -> None:
    wire = Wire(rng, loss)
    blobs = [data_of(size, seed) + bytes([seed]) for seed, size in enumerate(sizes)]
    for blob in blobs:
        wire.sender.start(K, blob, 0.0, 1e6)
    for _ in range(150):
        wire.send_all()
        wire.carry(rng.randrange(1000))
        if rng.random() < 0.2:
            wire.pass_time(rng.random() * 3)
    wire.loss = 0.0
    wire.settle()
    assert wire.applied == [blobs]
    assert outcomes(wire) == [Outcome.DELIVERED] * len(blobs)


def test_a_receiver_that_is_silent_holds_up_no_other() -> None:
    wire = Wire()
    for n in range(3):
        wire.sender.start("silent", b"%d" % n, 0.0, 10.0 + n)
        wire.sender.start("alive", b"%d" % n, 0.0, 60.0)
    for _ in range(20):
        wire.send_all()
        wire.up = [(key, payload) for key, payload in wire.up if key == "alive"]
        wire.carry()
    assert [ended.name.key for ended in wire.ended] == ["alive"] * 3
    wire.pass_time(10.0)
    wire.send_all()
    assert [key for key, _ in wire.up] == ["silent"]  # the next of that key has its turn


def test_both_ends_say_how_far_a_blob_is() -> None:
    wire = Wire(window=4)
    wire.sender.start(K, data_of(20), 5.0, 60.0)
    wire.sender.start("small", b"x", 5.0, 60.0)
    wire.now = 6.0
    for _ in range(11):
        wire.send_all()
        wire.carry()
    wire.down.clear()
    (there,) = wire.receiver.progress()
    (here,) = wire.sender.progress()
    assert (here.key, there.key) == (K, K)
    assert 0 < here.arrived <= there.arrived < here.total == there.total == 20 * BODY
    assert here.since <= there.since
    wire.settle()
    assert wire.sender.progress() == wire.receiver.progress() == []


# ---- windows and places


def test_what_is_under_way_stays_within_places_times_window() -> None:
    wire = Wire(window=3, places=2)
    for n in range(5):
        wire.sender.start(f"k{n}", data_of(20, n), 0.0, 60.0)
    most = 0
    while len(wire.sender):
        wire.send_all()
        most = max(most, sum(not is_control(payload) for _, payload in wire.up))
        wire.carry()
    assert most == 6
    assert outcomes(wire) == [Outcome.DELIVERED] * 5
    assert wire.now == 0.0


@pytest.mark.parametrize(("seconds", "most"), [(0.001, WIDEST), (0.02, 12), (1.0, 4)])
def test_a_window_is_as_wide_as_chunks_come_fast(seconds: float, most: int) -> None:
    wire = Wire(window=4, places=16, max_blob=400 * BODY)
    wire.sender.start(K, data_of(200), 0.0, 900.0)
    under_way = 0
    while len(wire.sender):
        wire.send_all()
        under_way = max(under_way, len(wire.up))
        wire.carry()
        wire.now += seconds
    assert under_way == pytest.approx(most, abs=1)


def test_a_window_that_was_wide_is_shared_with_who_comes_later() -> None:
    wire = Wire(window=4, places=8, max_blob=4000 * BODY)
    wire.sender.start("first", data_of(400), 0.0, 900.0)
    for _ in range(200):
        wire.send_all()
        wire.carry()
        wire.now += 0.001
    assert sum(key == "first" for key, _ in wire.up) > 16
    for n in range(7):
        wire.sender.start(f"k{n}", data_of(400, n + 1), wire.now, 900.0)
    for _ in range(400):
        wire.send_all()
        wire.carry()
        wire.now += 0.001
    wire.send_all()
    under_way = Counter(key for key, _ in wire.up)
    assert len(under_way) == 8
    assert max(under_way.values()) <= 5


def test_who_does_not_fit_waits_without_sending_and_is_called_when_there_is_room() -> None:
    wire = Wire(max_blob=20 * BODY)
    for n in range(3):
        wire.sender.start(f"k{n}", data_of(20, n), 0.0, 900.0)
    wire.send_all()
    while wire.up:
        wire.hear(*wire.up.pop(0))
    assert (wire.receiver.open_blobs, len(wire.receiver)) == (2, 3)
    assert wire.receiver.reserved == 40 * BODY
    while wire.down:
        wire.listen(*wire.down.pop(0))
    wire.send_all()
    assert not any(key == "k2" for key, _ in wire.up)
    wire.settle()
    assert outcomes(wire) == [Outcome.DELIVERED] * 3
    assert wire.now < 1.0


def test_a_sender_with_many_blobs_waits_for_one_with_none() -> None:
    wire = Wire(places=2)
    offered = [("greedy", data_of(4, n)) for n in range(4)] + [("modest", data_of(4, 9))]
    for key, data in offered:
        chunks = Chunks(data, SMALL)
        wire.hear(key, encode(Offer(chunks.digest, 1, chunks.count, chunks.total, 60.0)))
    for chunk in range(4):
        wire.hear("greedy", Chunks(offered[0][1], SMALL)[chunk])
    open_now = [key for (key, _), blob in wire.receiver._blobs.items() if blob.open]
    assert open_now == ["greedy", "modest"]


def test_a_stalled_sender_gives_its_place_to_one_that_waits_and_keeps_what_is_there() -> None:
    wire = Wire(places=1)
    stalled = Chunks(data_of(4, 1), SMALL)
    wire.hear("stalled", stalled[0])
    wire.down.clear()
    wire.sender.start("alive", data_of(4), 0.0, 900.0)
    wire.settle(STALLED_S + 2 * RETRY_LAST)
    assert outcomes(wire) == [Outcome.DELIVERED]
    assert wire.now >= STALLED_S
    for index in (1, 2, 3):
        wire.hear("stalled", stalled[index])
    assert wire.applied == [[data_of(4), data_of(4, 1)]]


def test_a_stalled_sender_loses_its_memory_to_one_that_waits_for_it() -> None:
    wire = Wire(max_blob=20 * BODY)
    for n in range(2):
        wire.hear(f"stalled{n}", Chunks(data_of(20, n), SMALL)[0])
    wire.down.clear()
    wire.sender.start("alive", data_of(20, 2), 0.0, 900.0)
    while len(wire.sender) and wire.now < HOARDING_S + 2 * RETRY_LAST:
        wire.settle(1.0)
        wire.pass_time(1.0)
    assert outcomes(wire) == [Outcome.DELIVERED]
    assert wire.now >= HOARDING_S
    assert wire.receiver.dropped >= 1


def test_offers_beyond_the_queue_are_not_kept() -> None:
    wire = Wire(places=1)
    for n in range(MAX_WAITING + 5):
        digest = hashlib.sha256(b"%d" % n).digest()
        wire.hear(f"k{n}", encode(Offer(digest, 1, 4, 4 * BODY, 60.0)))
    assert len(wire.receiver) == MAX_WAITING
    for n in range(MAX_OPEN + 5):
        other = Receiver(bytes(8), 10**6)
        for m in range(n):
            digest = hashlib.sha256(b"%d" % m).digest()
            other.take_control("one", Offer(digest, 1, 4, 4 * BODY, 60.0), 0.0)
        assert len(other) == min(n, MAX_OPEN)


# ---- the ends that are no delivery


def test_a_transfer_expires_with_its_deadline_at_both_ends() -> None:
    wire = Wire(window=4)
    wire.sender.start(K, data_of(12), 0.0, 20.0)
    wire.send_all()
    wire.carry()
    assert len(wire.receiver) == 1
    wire.up.clear()
    wire.down.clear()
    wire.pass_time(20.0)
    assert outcomes(wire) == [Outcome.EXPIRED]
    assert (len(wire.receiver), wire.receiver.reserved) == (0, 0)


def test_a_sender_that_gives_up_frees_the_receiver() -> None:
    wire = Wire()
    name = wire.sender.start(K, data_of(12), 0.0, 60.0)
    wire.send_all()
    wire.carry()
    assert wire.receiver.reserved
    ended, parcel = wire.sender.cancel(name)
    assert [one.outcome for one in ended] == [Outcome.CANCELLED]
    wire.hear(parcel.name.key, parcel.payload)
    wire.hear(parcel.name.key, parcel.payload)
    assert (len(wire.receiver), wire.receiver.reserved) == (0, 0)
    assert wire.sender.next(0.0) is None


def test_a_receiver_that_wants_no_more_ends_the_transfer() -> None:
    wire = Wire()
    wire.sender.start(K, data_of(12), 0.0, 60.0)
    wire.sender.start("other", data_of(12, 1), 0.0, 60.0)
    wire.send_all()
    while wire.up:
        wire.hear(*wire.up.pop(0))
    wire.answer(wire.receiver.forget(K, 0.0))
    wire.settle()
    assert {(ended.name.key, ended.outcome) for ended in wire.ended} == {
        (K, Outcome.REFUSED),
        ("other", Outcome.DELIVERED),
    }


def test_a_blob_too_large_is_refused_before_anything_of_it_is_sent() -> None:
    wire = Wire(max_blob=4 * BODY)
    wire.sender.start(K, data_of(5), 0.0, 60.0)
    wire.settle()
    assert outcomes(wire) == [Outcome.REFUSED]
    assert wire.chunks_sent == 0
    wire.hear(K, Chunks(data_of(5), SMALL)[0])
    assert decode(wire.down.pop()[1]) == Refuse(Chunks(data_of(5), SMALL).digest, Cause.TOO_LARGE)


def test_a_silent_blob_is_dropped_even_if_nobody_waits() -> None:
    wire = Wire()
    wire.hear(K, Chunks(data_of(5), SMALL)[0])
    wire.pass_time(SILENT_S - 1)
    assert len(wire.receiver) == 1
    wire.pass_time(1)
    assert (len(wire.receiver), wire.receiver.reserved) == (0, 0)


def test_wrong_bytes_are_malformed_and_the_right_ones_may_follow() -> None:
    wire = Wire()
    chunks = Chunks(data_of(2), SMALL)
    wire.hear(K, chunks[0])
    with pytest.raises(Malformed, match="hash"):
        wire.hear(K, chunks[1][:-1] + b"\x00")
    wire.sender.start(K, data_of(2), 0.0, 60.0)
    wire.settle()
    assert wire.applied == [[data_of(2)]]
    small = Chunks(b"small", SMALL)[0]
    with pytest.raises(Malformed, match="hash"):
        wire.hear(K, small[:-1] + b"L")
    assert wire.applied == [[data_of(2)]]


def test_a_sender_with_too_many_open_says_so() -> None:
    sender = Sender()
    names = []
    for n in range(MAX_OPEN):
        assert not sender.is_full(K)
        names.append(sender.start(K, b"%d" % n, 0.0, 60.0))
    assert sender.is_full(K)
    assert not sender.is_full("other")
    assert sender.start(K, b"0", 0.0, 70.0) == names[0]  # it is open already
    with pytest.raises(LocalError, match="no more"):
        sender.start(K, b"one more", 0.0, 60.0)
    assert sender.names(K) == names


def test_a_receiver_needs_a_name_and_room() -> None:
    for wrong in ((b"", 1, 1), (bytes(8), 2, 1), (bytes(8), 1, 1, 0), (bytes(8), 1, 1, 1, 0)):
        with pytest.raises(LocalError):
            Receiver(*wrong)


# ---- the bytes of control messages

digests = st.binary(min_size=32, max_size=32)
u32 = st.integers(0, 2**32 - 1)
controls: st.SearchStrategy[Control] = st.one_of(
    st.builds(
        Offer, digests, u32, u32, st.integers(0, 2**64 - 1), st.integers(0, 10**6).map(float)
    ),
    st.builds(
        Ack,
        digests,
        st.binary(min_size=8, max_size=8),
        st.integers(0, 2**64 - 1),
        u32,
        st.integers(0, 65535),
        st.booleans(),
        st.integers(0, 2**300),
    ),
    st.builds(Cancel, digests),
    st.builds(Refuse, digests, st.sampled_from(Cause)),
)


@given(controls)
def test_a_control_message_is_read_as_it_was_written(control: Control) -> None:
    assert is_control(encode(control))
    assert decode(encode(control)) == control


@given(st.one_of(st.binary(max_size=80), st.binary(max_size=60).map(lambda tail: b"ET\x01" + tail)))
def test_hostile_bytes_are_malformed_or_mean_something(payload: bytes) -> None:
    receiver = Receiver(bytes(8), 1000)
    try:
        control = decode(payload)
        receiver.take_control(K, control, 0.0)
    except Malformed:
        pass
    assert receiver.reserved <= 2000


@pytest.mark.parametrize("count", [0, 5, 2**32 - 1])
def test_an_offer_of_chunks_that_cannot_be_is_malformed(count: int) -> None:
    with pytest.raises(Malformed, match="offer of"):
        Receiver(bytes(8), 10_000).take_control(K, Offer(bytes(32), 1, count, 2000, 1.0), 0.0)


def test_a_receiver_takes_no_answers() -> None:
    with pytest.raises(Malformed, match="does not say Refuse"):
        Receiver(bytes(8), 1000).take_control(K, Refuse(bytes(32), Cause.UNWANTED), 0.0)
