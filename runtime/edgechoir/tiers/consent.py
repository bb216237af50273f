"""Whether this device's owner agrees to a task, decided on the device for every plan.

Training, evaluation and the statistics that training needs are agreed to by taking part; every
other statistic, and anything about what the device infers on at this moment, waits for its owner to
approve that very task by its hash. An owner may withdraw from everything at any time. What is not
agreed to is declined with the reason, and the round goes on without this device.

Two files in the state directory: `consent.json` is the owner's word, written by `edgechoir consent`
and read again for every plan; `asked.json` is what was asked here and what became of it.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from edgechoir import wire
from edgechoir.config.sections import Consent
from edgechoir.errors import OperatorError
from edgechoir.fleet.files import PRIVATE, write_atomic
from edgechoir.learning.statistics.inquiry import PLACED, task_hash
from edgechoir.learning.task import Task, read_task
from edgechoir.tiers import statistics

WORD: Final = "consent.json"
ASKED: Final = "asked.json"
MAX_APPROVED: Final = 256
MAX_ASKED: Final = 64
MAX_FILE: Final = 256 * 1024
MAX_SHOWN: Final = 200
DAY_S: Final = 86_400.0
WITHDRAWN: Final = "the owner of this device has withdrawn"
QUIET_S: Final = 600.0
"""A decision that repeats itself is noted again after so long: an SD card lasts longer."""
RECENT: Final = "recent"
"""Stands in an allow-list for tasks about what the device infers on at this moment."""

Hash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Word(BaseModel):
    """What the owner has said."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    approved: tuple[Hash, ...] = Field(default=(), max_length=MAX_APPROVED, strict=False)
    withdrawn: bool = False


class Question(BaseModel):
    """A task that was asked of this device."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    hash: Hash
    kind: Annotated[str, StringConstraints(max_length=MAX_SHOWN)]
    about: Annotated[str, StringConstraints(max_length=MAX_SHOWN)]
    first: float
    last: float
    times: int
    decision: Literal["agreed", "declined"]
    reason: Annotated[str, StringConstraints(max_length=MAX_SHOWN)] = ""


class Asked(BaseModel):
    """What was asked, the latest last, and when statistics were answered."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    questions: tuple[Question, ...] = Field(default=(), max_length=MAX_ASKED, strict=False)
    answered: tuple[float, ...] = Field(default=(), strict=False)


@dataclass(slots=True)
class Decision:
    """`hash` of the task, and why it is declined; agreed to where there is no reason."""

    task: Task
    hash: str
    reason: str = field(default="")


class Gate:
    """The owner's consent on a device."""

    def __init__(self, wishes: Consent, state: Path) -> None:
        self._wishes = wishes
        self._state = state
        self._asked = read_asked(state)

    def decide(self, plan: wire.Plan) -> Decision:
        """Decide, and note what was asked. Blocking: it reads and writes small files."""
        task = read_task(plan.task)
        now = time.time()
        decision = Decision(task, task_hash(task), self._why_not(task, plan, now))
        self._note(decision, now)
        return decision

    def withdrawn(self) -> bool:
        """Whether the owner has withdrawn: asked once more just before an answer leaves."""
        return read_word(self._state).withdrawn

    def _why_not(self, task: Task, plan: wire.Plan, now: float) -> str:
        wishes, word = self._wishes, read_word(self._state)
        if word.withdrawn:
            return WITHDRAWN
        needed = purposes(task)
        lacking = [purpose for purpose in needed if purpose not in wishes.allow]
        key = task_hash(task)
        if lacking and key not in word.approved:
            return (
                f"the owner has not approved {' and '.join(lacking)}, task {key[:12]}: "
                f"`edgechoir consent approve {key[:12]}` on the device does"
            )
        if needed == ("train",):
            return ""
        if plan.min_survivors < wishes.min_members or plan.devices < wishes.min_devices:
            return (
                f"a sum of {plan.min_survivors} members and {plan.devices} devices, the owner "
                f"wants {wishes.min_members} and {wishes.min_devices}"
            )
        if self._today(now) >= wishes.answers_per_day:
            return f"{wishes.answers_per_day} statistics were answered within 24 hours"
        return ""

    def _today(self, now: float) -> int:
        # A clock that was set back must not open the budget again: what lies ahead counts too.
        return sum(at > now - DAY_S for at in self._asked.answered)

    def _note(self, decision: Decision, now: float) -> None:
        if purposes(decision.task) == ("train",) and not decision.reason:
            return
        before = next((q for q in self._asked.questions if q.hash == decision.hash), None)
        same = before is not None and before.reason == decision.reason[:MAX_SHOWN]
        if decision.reason and before is not None and same and 0 <= now - before.last < QUIET_S:
            return
        question = Question(
            hash=decision.hash,
            kind=decision.task.kind[:MAX_SHOWN],
            about=about(decision.task),
            first=now if before is None else before.first,
            last=now,
            times=1 if before is None else before.times + 1,
            decision="declined" if decision.reason else "agreed",
            reason=decision.reason[:MAX_SHOWN],
        )
        others = [q for q in self._asked.questions if q.hash != decision.hash]
        answered = [at for at in self._asked.answered if at > now - DAY_S]
        if not decision.reason:
            answered.append(now)
        self._asked = Asked(
            questions=(*others[1 - MAX_ASKED :], question), answered=tuple(answered)
        )
        _write(self._state / ASKED, self._asked)


def purposes(task: Task) -> tuple[str, ...]:
    """What an allow-list must name for this task. All that is no statistic is training."""
    kind = task.kind if task.kind in statistics.KINDS else "train"
    return (kind, RECENT) if task.options.get("source") == RECENT else (kind,)


def about(task: Task) -> str:
    """The task's lasting options in short, for people."""
    lasting: Mapping[str, Any] = {k: v for k, v in task.options.items() if k not in PLACED}
    return json.dumps(lasting, sort_keys=True)[1:-1][:MAX_SHOWN]


def read_word(state: Path) -> Word:
    """The owner's word; nothing said where there is no file. A damaged one means withdrawn."""
    try:
        data = _read(state / WORD)
        return Word() if data is None else Word.model_validate_json(data)
    except (OSError, ValidationError):
        return Word(withdrawn=True)


def read_asked(state: Path) -> Asked:
    """What was asked here; nothing where the file is missing or damaged."""
    try:
        data = _read(state / ASKED)
        return Asked() if data is None else Asked.model_validate_json(data)
    except (OSError, ValidationError):
        return Asked()


def approve(state: Path, start: str) -> str:
    """Approve the task whose hash starts so; its whole hash. Raises OperatorError."""
    known = {q.hash for q in read_asked(state).questions}
    found = sorted(h for h in known | ({start} if len(start) == 64 else set()) if _is(h, start))
    if len(found) != 1:
        seen = "none" if not found else f"{len(found)}"
        raise OperatorError(
            f"{seen} of the tasks asked of this device starts with {start!r}: "
            "`edgechoir consent list` shows them"
        )
    word = read_word(state)
    if len(word.approved) >= MAX_APPROVED:
        raise OperatorError(f"{MAX_APPROVED} tasks are approved already: revoke some")
    approved = tuple(sorted({*word.approved, found[0]}))
    _write(state / WORD, word.model_copy(update={"approved": approved}))
    return found[0]


def revoke(state: Path, start: str) -> int:
    """Take approvals back; how many. Raises OperatorError."""
    word = read_word(state)
    kept = tuple(h for h in word.approved if not h.startswith(start))
    if len(kept) == len(word.approved):
        raise OperatorError(f"no approved task starts with {start!r}")
    _write(state / WORD, word.model_copy(update={"approved": kept}))
    return len(word.approved) - len(kept)


def withdraw(state: Path, withdrawn: bool) -> None:
    """Withdraw from every task, or take part again."""
    _write(state / WORD, read_word(state).model_copy(update={"withdrawn": withdrawn}))


def _is(whole: str, start: str) -> bool:
    return len(start) >= 6 and whole.startswith(start) and len(whole) == 64


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE)
    except FileNotFoundError:
        return None


def _write(path: Path, document: BaseModel) -> None:
    write_atomic(path, document.model_dump_json(indent=1).encode() + b"\n", PRIVATE)
