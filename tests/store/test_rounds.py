"""What came of each round outlives the process, within a bound."""

from contextlib import closing
from pathlib import Path

import pytest

from edgechoir.errors import OperatorError
from edgechoir.store.rounds import RoundHistory


def test_rounds_come_back_in_order_after_a_restart(tmp_path: Path) -> None:
    with closing(RoundHistory(tmp_path / "rounds.db")) as history:
        history.add(b"one")
        history.add(b"two")
    with closing(RoundHistory(tmp_path / "rounds.db")) as history:
        history.add(b"three")
        assert history.rounds() == [b"one", b"two", b"three"]


def test_the_oldest_go_first(tmp_path: Path) -> None:
    with closing(RoundHistory(tmp_path / "rounds.db", rounds=3, settings=1)) as history:
        for number in range(10):
            history.add(b"%d" % number)
            history.set_to(b"%d" % number)
        assert history.rounds() == [b"7", b"8", b"9"]
        assert history.settings() == [b"9"]


def test_the_same_settings_are_kept_once_until_they_change(tmp_path: Path) -> None:
    with closing(RoundHistory(tmp_path / "rounds.db")) as history:
        for document in (b"a", b"a", b"b", b"b", b"a"):
            history.set_to(document)
        assert history.settings() == [b"a", b"b", b"a"]


def test_a_disk_that_takes_no_more_is_said(tmp_path: Path) -> None:
    with closing(RoundHistory(tmp_path / "rounds.db")) as history:
        history.add(b"one")
        history._database.execute("PRAGMA max_page_count = 1")
        with pytest.raises(OperatorError, match="check the disk"):
            history.add(bytes(1_000_000))
        assert history.rounds() == [b"one"]
