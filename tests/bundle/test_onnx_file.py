"""infer.onnx takes every weight from params.bin at its place, and nothing from any other file."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgechoir.bundle.load import load_bundle
from edgechoir.bundle.onnx_file import check_onnx
from edgechoir.errors import BadModel

DIGITS = load_bundle(Path(__file__).parents[2] / "models" / "digits" / "bundle")
ONNX, MANIFEST = DIGITS.onnx, DIGITS.manifest


def field(number: int, content: bytes) -> bytes:
    """A length-delimited protobuf field of under 128 bytes."""
    return (
        bytes([number << 3 & 127 | 2 | (128 if number > 15 else 0)])
        + (bytes([number >> 4]) if number > 15 else b"")
        + bytes([len(content)])
        + content
    )


def refusal(data: bytes) -> str:
    """Why this model is refused."""
    with pytest.raises(BadModel, match=r"infer\.onnx") as caught:
        check_onnx(data, MANIFEST)
    return str(caught.value)


def in_graph(extra: bytes, *, first: bool = False) -> bytes:
    """The digits model with one more field in its graph, after the others or before them."""
    at = ONNX.index(b"\x3a")  # ModelProto.graph, whose length takes two bytes
    start = at + 3
    end = start + ((ONNX[at + 1] & 127) | ONNX[at + 2] << 7)
    graph = extra + ONNX[start:end] if first else ONNX[start:end] + extra
    return ONNX[:at] + bytes([0x3A, len(graph) & 127 | 128, len(graph) >> 7]) + graph + ONNX[end:]


POINTER = field(13, field(1, b"location") + field(2, b"/etc/passwd"))


def test_the_digits_model_passes() -> None:
    check_onnx(ONNX, MANIFEST)
    check_onnx(in_graph(b""), MANIFEST)


def test_a_weight_from_another_file_is_refused() -> None:
    told = refusal(ONNX.replace(b"params.bin", b"../../keys"))
    assert "../../keys" in told


def test_a_weight_at_another_place_is_refused() -> None:
    assert "8192" in refusal(ONNX.replace(b"8192", b"8196"))


def test_a_weight_that_is_inline_is_refused() -> None:
    inline = field(5, field(8, b"0.bias"))
    assert "'0.bias' lies at {}" in refusal(in_graph(inline, first=True))


def test_a_second_weight_of_the_same_name_is_refused() -> None:
    assert "twice" in refusal(in_graph(field(5, field(8, b"0.bias") + POINTER)))


def test_an_unknown_initialiser_cannot_point_to_a_file() -> None:
    assert "no parameter" in refusal(in_graph(field(5, field(8, b"extra") + POINTER)))
    check_onnx(in_graph(field(5, field(8, b"extra"))), MANIFEST)  # a constant may be inline


def test_a_constant_cannot_point_to_a_file() -> None:
    node = field(4, b"Constant") + field(5, field(5, POINTER))
    assert "constant points" in refusal(in_graph(field(1, node)))


def test_an_inner_graph_cannot_point_to_a_file() -> None:
    inner = field(5, field(8, b"w") + POINTER)
    node = field(4, b"If") + field(5, field(6, inner))
    assert "inner graph" in refusal(in_graph(field(1, node)))


def test_a_function_cannot_point_to_a_file() -> None:
    node = field(4, b"Constant") + field(5, field(5, POINTER))
    assert "constant points" in refusal(ONNX + field(25, field(7, node)))


def test_graphs_nest_only_so_deep() -> None:
    inner = b""
    for _ in range(10):
        inner = field(1, field(4, b"If") + field(5, field(6, inner)))
    assert "deep" in refusal(in_graph(inner))


def test_operators_of_another_domain_are_refused() -> None:
    node = field(4, b"RunShell") + field(7, b"my.ops")
    assert "RunShell" in refusal(in_graph(field(1, node)))


def test_sparse_tensors_are_refused() -> None:
    assert "sparse" in refusal(in_graph(field(15, b"")))
    node = field(4, b"Constant") + field(5, field(22, b""))
    assert "sparse" in refusal(in_graph(field(1, node)))


def test_a_second_graph_is_refused() -> None:
    assert "2 graphs" in refusal(ONNX + field(7, b""))


def test_a_second_input_is_refused() -> None:
    assert "'z'" in refusal(in_graph(field(11, field(1, b"z"))))


@given(data=st.binary(max_size=300))
def test_any_bytes_are_refused_cleanly(data: bytes) -> None:
    with pytest.raises(BadModel):
        check_onnx(data, MANIFEST)


@given(data=st.data())
@settings(max_examples=300)
def test_any_cut_or_change_is_read_or_refused_cleanly(data: st.DataObject) -> None:
    spoiled = bytearray(ONNX)
    spoiled[data.draw(st.integers(0, len(spoiled) - 1))] = data.draw(st.integers(0, 255))
    del spoiled[data.draw(st.integers(1, len(spoiled))) :]
    with contextlib.suppress(BadModel):  # any other error fails the test
        check_onnx(bytes(spoiled), MANIFEST)
