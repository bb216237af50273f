from math import exp, inf, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgechoir.errors import InferenceError
from edgechoir.inference.prediction import Output, read_row

row = st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, max_size=40)


@given(row)
def test_confidence_is_the_softmax_of_the_first_largest_logit(z: list[float]) -> None:
    label, confidence = read_row(z, Output.LOGITS)
    assert label == int(np.argmax(z))
    p = np.exp(np.array(z) - max(z))
    assert confidence == pytest.approx(float(p.max() / p.sum()))


@given(st.floats(-1e4, 1e4))
def test_single_logit_is_that_of_class_one(z: float) -> None:
    label, confidence = read_row([z], Output.LOGITS)
    assert confidence == pytest.approx(1 / (1 + exp(-abs(z))))
    if abs(z) > 1e-9:  # closer to 0 both classes have probability 0.5 in double precision
        assert label == (z > 0)


def test_probabilities_are_taken_as_they_are() -> None:
    assert read_row([0.25, 0.75], Output.PROBABILITIES) == (1, 0.75)
    assert read_row([0.25], Output.PROBABILITIES) == (0, 0.75)


def test_plain_values_have_no_label() -> None:
    assert read_row([3.5], Output.VALUES) == (None, None)


@pytest.mark.parametrize("bad", [nan, inf, -inf])
@pytest.mark.parametrize("output", list(Output))
def test_answer_that_is_not_finite_is_an_error(bad: float, output: Output) -> None:
    with pytest.raises(InferenceError, match="not finite"):
        read_row([1.0, bad], output)
