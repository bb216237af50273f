"""The keystream follows the processor, unless the operator says otherwise."""

from pathlib import Path

import pytest

from edgechoir.secagg.pads import Keystream
from edgechoir.tiers.processor import keystream_of, processor_features

X86 = "processor\t: 0\nmodel name\t: some\nflags\t\t: fpu aes avx2\nprocessor\t: 1\nflags\t: fpu\n"
PI_4 = "processor\t: 0\nFeatures\t: fp asimd evtstrm crc32 cpuid\n"
PI_5 = "processor\t: 0\nFeatures\t: fp asimd aes pmull sha1 sha2 crc32\n"


@pytest.mark.parametrize(
    ("text", "keystream"),
    [
        (X86, Keystream.AES),
        (PI_4, Keystream.CHACHA),
        (PI_5, Keystream.AES),
        ("no such line\n", Keystream.AES),
    ],
)
def test_a_processor_without_instructions_for_aes_gets_chacha(
    text: str, keystream: Keystream, tmp_path: Path
) -> None:
    listed = tmp_path / "cpuinfo"
    listed.write_text(text)
    assert keystream_of("auto", processor_features(listed)) is keystream


def test_a_system_that_lists_no_features_gets_aes(tmp_path: Path) -> None:
    assert processor_features(tmp_path / "none") is None
    assert keystream_of("auto", None) is Keystream.AES


@pytest.mark.parametrize("keystream", Keystream)
def test_the_configuration_has_the_last_word(keystream: Keystream) -> None:
    for features in (None, frozenset[str](), frozenset({"aes"})):
        assert keystream_of(keystream.value, features) is keystream
