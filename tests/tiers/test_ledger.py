"""A device's account of its privacy: charged before it speaks, kept over restarts, with an end."""

from pathlib import Path

import pytest

from edgechoir.errors import OperatorError, PolicyViolation
from edgechoir.learning.privacy.budget import epsilon
from edgechoir.store.journal import RoundJournal
from edgechoir.tiers.ledger import NOTE, Ledger, Owner


def test_the_account_survives_a_restart(tmp_path: Path) -> None:
    journal = RoundJournal(tmp_path / "journal.db")
    ledger = Ledger(journal, "alps", Owner(False, None, 1e-5))
    assert ledger.epsilon == 0.0
    for _ in range(3):
        ledger.charge(0.5)
    journal.close()
    journal = RoundJournal(tmp_path / "journal.db")
    again = Ledger(journal, "alps", Owner(False, None, 1e-5))
    assert (again.rho, again.rounds) == (1.5, 3)
    assert again.epsilon == epsilon(1.5, 1e-5)
    assert Ledger(journal, "andes", Owner(False, None, 1e-5)).rounds == 0
    journal.close()


def test_a_round_beyond_the_cap_is_refused_and_costs_nothing(tmp_path: Path) -> None:
    journal = RoundJournal(tmp_path / "journal.db")
    ledger = Ledger(journal, "alps", Owner(False, 5.0, 1e-5))
    ledger.check(0.25)
    ledger.charge(0.25)
    with pytest.raises(PolicyViolation, match="allows 5"):
        ledger.check(2.0)
    assert ledger.rounds == 1
    journal.close()


def test_the_cap_holds_also_where_two_rounds_were_checked_before_either_was_charged(
    tmp_path: Path,
) -> None:
    journal = RoundJournal(tmp_path / "journal.db")
    ledger = Ledger(journal, "alps", Owner(False, 5.0, 1e-5))
    ledger.check(0.4)
    ledger.check(0.4)
    ledger.charge(0.4)
    with pytest.raises(PolicyViolation, match="allows 5"):
        ledger.charge(0.4)
    assert (ledger.rho, ledger.rounds) == (0.4, 1)
    journal.close()


def test_an_epsilon_with_an_end_goes_with_no_round_without_noise(tmp_path: Path) -> None:
    journal = RoundJournal(tmp_path / "journal.db")
    ledger = Ledger(journal, "alps", Owner(False, 5.0, 1e-5))
    with pytest.raises(PolicyViolation, match="without noise"):
        ledger.check(None)
    assert ledger.describe()["required"] is True
    journal.close()


def test_after_a_vector_without_noise_no_epsilon_is_shown_any_more(tmp_path: Path) -> None:
    journal = RoundJournal(tmp_path / "journal.db")
    ledger = Ledger(journal, "alps", Owner(False, None, 1e-5))
    ledger.charge(0.5)
    assert ledger.describe()["epsilon"] == pytest.approx(epsilon(0.5, 1e-5), abs=1e-6)
    ledger.charge(None)
    ledger.charge(0.5)
    for one in (ledger, Ledger(journal, "alps", Owner(False, None, 1e-5))):
        assert (one.describe()["epsilon"], one.describe()["without_noise"]) == (None, True)
        assert (one.rho, one.rounds) == (1.0, 2)
    journal.close()


def test_an_owner_may_ask_for_noise_in_every_round(tmp_path: Path) -> None:
    journal = RoundJournal(tmp_path / "journal.db")
    Ledger(journal, "alps", Owner(False, None, 1e-5)).check(None)
    with pytest.raises(PolicyViolation, match="without noise"):
        Ledger(journal, "alps", Owner(True, None, 1e-5)).check(None)
    journal.close()


def test_an_account_that_cannot_be_read_is_not_begun_anew(tmp_path: Path) -> None:
    journal = RoundJournal(tmp_path / "journal.db")
    journal.note("alps", NOTE, b'{"rho": "much"}')
    with pytest.raises(OperatorError, match="cannot be read"):
        Ledger(journal, "alps", Owner(False, None, 1e-5))
    journal.close()
