"""A long text in a box that one reader can open, written piece by piece.

    parcel = box of a fresh key (`sealing.py`) [1168] | AES-256-GCM of the text under it | tag [16]

HPKE (RFC 9180) takes and gives a text as a whole: a model's update would be in memory once more
for each layer around it. So only a key of 32 bytes goes through it, and the text is enciphered
under that key where it will stay (NIST SP 800-38D). The key covers one text, so a nonce of zero is
used once with it; box and text are both bound to the same `info`.
"""

from typing import Final

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import GCM

from edgechoir.errors import LocalError, Malformed
from edgechoir.secagg.sealing import OVERHEAD, KemKey, seal, unseal
from edgechoir.types import Entropy

KEY_BYTES: Final = 32
TAG_BYTES: Final = 16
BOX_BYTES: Final = OVERHEAD + KEY_BYTES
_NONCE: Final = bytes(12)


class Parcel:
    """A parcel for the holder of `public` with a text of `size` bytes. Raises Malformed."""

    def __init__(self, public: bytes, size: int, info: bytes, entropy: Entropy) -> None:
        key = entropy(KEY_BYTES)
        self._parcel = np.empty(BOX_BYTES + size + TAG_BYTES, np.uint8).data
        self._parcel[:BOX_BYTES] = seal(public, key, info)
        self._at = BOX_BYTES
        self._cipher = Cipher(AES256(key), GCM(_NONCE)).encryptor()
        self._cipher.authenticate_additional_data(info)

    def write(self, piece: bytes | memoryview) -> None:
        """The next bytes of the text."""
        end = self._at + len(piece)
        if end > len(self._parcel) - TAG_BYTES:
            raise LocalError(f"{end - len(self._parcel) + TAG_BYTES} bytes longer than was said")
        self._cipher.update_into(piece, self._parcel[self._at : end])
        self._at = end

    def close(self) -> memoryview:
        """The whole parcel. LocalError unless the text is as long as was said."""
        if self._at != len(self._parcel) - TAG_BYTES:
            raise LocalError(f"{len(self._parcel) - TAG_BYTES - self._at} bytes are not written")
        self._cipher.finalize()
        self._parcel[self._at :] = self._cipher.tag
        return self._parcel.toreadonly()


def open_parcel(key: KemKey, parcel: bytes | memoryview, info: bytes) -> memoryview:
    """The text, in memory of its own that may be written to. Raises Malformed."""
    size = len(parcel) - BOX_BYTES - TAG_BYTES
    if size < 0:
        raise Malformed(f"a parcel has at least {BOX_BYTES + TAG_BYTES} bytes, saw {len(parcel)}")
    view = memoryview(parcel)
    secret = unseal(key, view[:BOX_BYTES], info)
    if len(secret) != KEY_BYTES:
        raise Malformed(f"the key of a parcel has {KEY_BYTES} bytes, saw {len(secret)}")
    text = np.empty(size, np.uint8).data
    try:
        AESGCM(secret).decrypt_into(_NONCE, view[BOX_BYTES:], info, text)
    except InvalidTag:
        raise Malformed("the text of a parcel does not open: it is not intact") from None
    return text
