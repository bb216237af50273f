import os
from pathlib import Path

import pytest

from edgechoir.errors import OperatorError
from edgechoir.store.cipher import OVERHEAD, RowCipher, load_key

KEY = bytes(range(32))


def test_a_sealed_row_opens_with_its_key_and_what_stands_beside_it() -> None:
    cipher = RowCipher(KEY)
    sealed = cipher.seal(b"row", b"about")
    assert len(sealed) == 3 + OVERHEAD
    assert cipher.unseal(sealed, b"about") == b"row"
    assert cipher.seal(b"row", b"about") != sealed
    assert cipher.unseal(sealed, b"other") is None
    assert RowCipher(bytes(32)).unseal(sealed, b"about") is None
    for at in range(len(sealed)):
        changed = bytearray(sealed)
        changed[at] ^= 1
        assert cipher.unseal(bytes(changed), b"about") is None
    assert cipher.unseal(b"", b"about") is None


def test_a_proof_is_of_one_key() -> None:
    proof = RowCipher(KEY).proof()
    assert RowCipher(KEY).proves(proof)
    assert not RowCipher(bytes(32)).proves(proof)


def test_a_blinded_name_is_the_same_each_time_and_another_under_another_key() -> None:
    assert RowCipher(KEY).blind(b"name") == RowCipher(KEY).blind(b"name")
    assert RowCipher(KEY).blind(b"name") != RowCipher(KEY).blind(b"nane")
    assert RowCipher(KEY).blind(b"name") != RowCipher(bytes(32)).blind(b"name")


def test_a_key_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "samples.key"
    with pytest.raises(OperatorError, match="put the key back"):
        load_key(path, make=False)
    key = load_key(path, make=True)
    assert len(key) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_key(path, make=True) == load_key(path, make=False) == key
    assert os.listdir(tmp_path) == ["samples.key"]


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "samples.key"
    load_key(path, make=True)
    path.chmod(0o640)
    with pytest.raises(OperatorError, match="0640"):
        load_key(path, make=False)


@pytest.mark.parametrize("text", ["", "00" * 31, "zz" * 32, "00" * 40, "\xff" * 8])
def test_a_file_that_is_no_key_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "samples.key"
    path.write_text(text, "latin-1")
    path.chmod(0o600)
    with pytest.raises(OperatorError, match="hex digits"):
        load_key(path, make=False)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    load_key(tmp_path / "real.key", make=True)
    (tmp_path / "samples.key").symlink_to(tmp_path / "real.key")
    with pytest.raises(OperatorError):
        load_key(tmp_path / "samples.key", make=False)
