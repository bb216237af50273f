"""Samples that are made up."""

from itertools import islice

import numpy as np
import pytest

from edgechoir.errors import OperatorError
from edgechoir.pipeline.sources.camera import pictures
from edgechoir.pipeline.sources.generator import PERIOD, Shape, synthetic


@pytest.mark.parametrize("shape", ["sine", "noise", "walk"])
def test_same_seed_gives_the_same_samples(shape: Shape) -> None:
    first, second = (np.array(list(islice(synthetic(shape, 3, 5), 50))) for _ in range(2))
    assert first.shape == (50, 3)
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, np.array(list(islice(synthetic(shape, 3, 6), 50))))


def test_sine_comes_round_again_and_faults_are_labelled() -> None:
    sine = np.array(list(islice(synthetic("sine", 1), 10 * PERIOD))).reshape(10, PERIOD)
    assert np.corrcoef(sine[0], sine[5])[0, 1] > 0.95
    drawn = list(islice(synthetic("faults", 1), 4000))
    labels = np.array([item[1] for item in drawn if isinstance(item, tuple)])
    values = np.array([item[0][0] for item in drawn if isinstance(item, tuple)])
    assert 0.03 < labels.mean() < 0.07
    assert values[labels == 1].mean() - values[labels == 0].mean() > 2


def test_shape_that_is_none_is_refused() -> None:
    with pytest.raises(OperatorError, match="sine, noise, walk, faults"):
        synthetic("square", 1)  # type: ignore[arg-type]  # as a configuration might
    with pytest.raises(OperatorError):
        synthetic("sine", 0)


def test_camera_needs_opencv_and_says_so_or_gives_pictures(tmp_path: object) -> None:
    try:
        import cv2
    except ImportError:
        with pytest.raises(OperatorError, match=r"edgechoir\[camera\]"):
            pictures(0, 8, 8)
        return
    path = f"{tmp_path}/film.avi"
    film = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"MJPG"), 5, (64, 32))
    for level in (0, 128, 255):
        film.write(np.full((32, 64, 3), (level, 0, 255), np.uint8))  # blue, green, red
    film.release()
    shown = list(pictures(path, 8, 4))
    assert [picture.shape for picture in shown] == [(3, 4, 8)] * 3
    red, green, blue = shown[1].mean(axis=(1, 2))
    assert (red, green, blue) == pytest.approx((1, 0, 0.5), abs=0.05)
    assert next(pictures(path, 8, 4, grey=True)).shape == (1, 4, 8)
