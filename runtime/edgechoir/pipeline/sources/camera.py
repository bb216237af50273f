"""Pictures from a camera or a video file, where OpenCV is installed (the extra `camera`).

A picture is scaled to `width` x `height` and given as [channels, height, width] in 0 to 1, red
first, as models are trained; or as one grey channel.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from edgechoir.errors import OperatorError, SourceError
from edgechoir.types import Floats


def pictures(device: int | str, width: int, height: int, *, grey: bool = False) -> Iterator[Floats]:
    """Pictures for ever, or to the end of a file; `device` is its path or the camera's number.

    Raises OperatorError: OpenCV is not installed. SourceError: the camera cannot be read now.
    """
    try:
        import cv2
    except ImportError as error:
        raise OperatorError(
            f"a camera needs OpenCV ({error}): pip install 'edgechoir[camera]'"
        ) from error
    return _pictures(cv2, device, width, height, grey)


def _pictures(cv2: Any, device: int | str, width: int, height: int, grey: bool) -> Iterator[Floats]:
    capture = cv2.VideoCapture(device)
    try:
        if not capture.isOpened():
            raise SourceError(f"camera {device} cannot be opened")
        seen = False
        while True:
            good, frame = capture.read()
            if not good:
                if seen and isinstance(device, str):
                    return  # the end of a file
                raise SourceError(f"camera {device} gives no picture")
            seen = True
            small = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
            colour = cv2.COLOR_BGR2GRAY if grey else cv2.COLOR_BGR2RGB
            picture = np.asarray(cv2.cvtColor(small, colour), dtype=np.float32) / np.float32(255)
            yield picture[None] if grey else np.ascontiguousarray(picture.transpose(2, 0, 1))
    finally:
        capture.release()
