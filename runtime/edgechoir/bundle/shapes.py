"""The shape of every value in a training graph, worked out without torch and without memory.

Each rule has the argument names of its aten operator, with shapes where tensors stand, and gives
the shape of the result. A rule refuses what torch would refuse; a graph whose values are too large
is refused before anything is allocated for it. The tests hold every rule against torch.
"""

import math
from collections.abc import Callable, Mapping
from typing import Final

from edgechoir.bundle.graph import INPUT, Graph, Param, Ref, Value
from edgechoir.bundle.manifest import GRAPH, Manifest
from edgechoir.errors import BadModel

Shape = tuple[int, ...]
Result = Shape | list[Shape] | int
Axes = int | tuple[int, ...] | None
Operand = Shape | float

BATCH: Final = 2
_OTHERS: Final = (1, 3)
"""A graph that has BATCH written into it fits no other batch; 1 is special, for it broadcasts."""
MAX_VALUE: Final = 1 << 25
"""Elements of one value for a batch of BATCH."""
MAX_STEP: Final = 4096
"""Of a stride or dilation."""
MAX_ALL: Final = 1 << 27
"""Elements of all values together for a batch of BATCH: what training may have to keep."""


def check_shapes(graph: Graph, manifest: Manifest) -> None:
    """Refuse a graph whose shapes do not fit, are too large, or do not end in [batch, outputs].

    `graph` has passed check_graph. Raises BadModel naming the node.
    """
    for batch in (BATCH, *_OTHERS):
        results = infer_shapes(graph, manifest, batch)
        expected = (batch, len(manifest.outputs))
        if results[graph.output] != expected:
            raise BadModel(
                f"{GRAPH}: the output has shape {results[graph.output]} for a batch of {batch}, "
                f"expected {expected}"
            )


def infer_shapes(graph: Graph, manifest: Manifest, batch: int) -> dict[str, Result]:
    """The shape of each node's result, by name, for a batch of that many samples."""
    params = {parameter.name: parameter.shape for parameter in manifest.parameters}
    results: dict[str, Result] = {INPUT: (batch, *manifest.input_shape)}
    total = 0
    for node in graph.nodes:
        args = {name: _resolve(value, results, params) for name, value in node.args.items()}
        try:
            result = _RULES[node.op](**args)
        except (ValueError, IndexError) as error:
            raise BadModel(f"{GRAPH}: node {node.name!r}: {node.op}: {error}") from error
        total += _measure(node.name, result)
        if total > MAX_ALL:
            raise BadModel(f"{GRAPH}: values up to {node.name!r} have over {MAX_ALL} elements")
        results[node.name] = result
    return results


def _measure(name: str, result: Result) -> int:
    if isinstance(result, int):
        return 0
    shapes = [result] if isinstance(result, tuple) else result
    elements = sum(math.prod(shape) for shape in shapes)
    if elements > MAX_VALUE or any(len(shape) > 8 for shape in shapes):
        raise BadModel(
            f"{GRAPH}: node {name!r} would have shape {str(result)[:200]}; at most {MAX_VALUE} "
            "elements and 8 axes are allowed"
        )
    return elements


def _resolve(value: Value, results: Mapping[str, Result], params: Mapping[str, Shape]) -> object:
    match value:
        case Ref(name):
            return results[name]
        case Param(name):
            return params[name]
        case tuple():
            return tuple(_resolve(item, results, params) for item in value)
    return value


def _need(condition: bool, reason: str) -> None:
    if not condition:
        raise ValueError(reason)


def _axis(dim: int, rank: int) -> int:
    _need(-max(rank, 1) <= dim < max(rank, 1), f"axis {dim} of a tensor with {rank} axes")
    return dim % max(rank, 1)


def _axes(dim: Axes, rank: int) -> list[int]:
    if dim is None or dim == ():
        return list(range(rank))
    axes = [_axis(d, rank) for d in ((dim,) if isinstance(dim, int) else dim)]
    _need(len(set(axes)) == len(axes), f"axes {dim} name one axis twice")
    return axes


def _broadcast(a: Shape, b: Shape) -> Shape:
    rank = max(len(a), len(b))
    pairs = zip((1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b, strict=True)
    joined = []
    for m, n in pairs:
        _need(m == n or 1 in (m, n), f"shapes {a} and {b} do not go together")
        joined.append(n if m == 1 else m)
    return tuple(joined)


def _same(self: Shape, **options: object) -> Shape:
    return self


def _clamp(self: Shape, min: float | None = None, max: float | None = None) -> Shape:
    _need(min is not None or max is not None, "neither min nor max")
    return self


def _same_input(input: Shape, p: float, train: bool) -> Shape:
    return input


def _binary(self: Shape, other: Operand, alpha: float = 1) -> Shape:
    return _broadcast(self, other) if isinstance(other, tuple) else self


def _along(self: Shape, dim: int) -> Shape:
    _axis(dim, len(self))
    return self


def _linear(input: Shape, weight: Shape, bias: Shape | None = None) -> Shape:
    _need(len(input) > 0 and len(weight) == 2, f"input {input}, weight {weight}")
    _need(input[-1] == weight[1], f"input {input} does not fit weight {weight}")
    _need(bias is None or bias == weight[:1], f"bias {bias} does not fit weight {weight}")
    return (*input[:-1], weight[0])


def _matmul(self: Shape, other: Shape) -> Shape:
    _need(len(self) > 1 and len(other) > 1, f"{self} times {other}: both must have two axes")
    _need(self[-1] == other[-2], f"{self} does not fit {other}")
    return (*_broadcast(self[:-2], other[:-2]), self[-2], other[-1])


def _mm(self: Shape, mat2: Shape) -> Shape:
    _need(len(self) == len(mat2) == 2, f"{self} times {mat2}: both must be matrices")
    return _matmul(self, mat2)


def _bmm(self: Shape, mat2: Shape) -> Shape:
    _need(len(self) == len(mat2) == 3 and self[0] == mat2[0], f"{self} times {mat2}")
    return _matmul(self, mat2)


def _addmm(self: Shape, mat1: Shape, mat2: Shape) -> Shape:
    product = _mm(mat1, mat2)
    _need(_broadcast(self, product) == product, f"{self} does not fit {product}")
    return product


def _spread(numbers: Shape, n: int) -> Shape:
    """A setting of n spatial axes: one for each, or one for all."""
    _need(len(numbers) in (1, n), f"{numbers} for {n} axes")
    return numbers * n if len(numbers) == 1 else numbers


def _steps(given: Shape, n: int) -> Shape:
    """Strides or dilations: torch holds them in 16 bits somewhere, and crashes at 32768."""
    steps = _spread(given, n)
    _need(max(steps) <= MAX_STEP, f"steps {given}, at most {MAX_STEP} are allowed")
    return steps


def _windows(
    size: Shape, kernel: Shape, stride: Shape, padding: Shape, dilation: Shape, ceil: bool = False
) -> Shape:
    """How many windows fit along each axis."""
    counts = []
    for s, k, step, pad, d in zip(size, kernel, stride, padding, dilation, strict=True):
        room = s + 2 * pad - d * (k - 1) - 1
        _need(room >= 0, f"a window of {d * (k - 1) + 1} on {s} with padding {pad}")
        count = (room + (step - 1 if ceil else 0)) // step + 1
        # A last window must start inside the input or its left padding.
        counts.append(count - 1 if ceil and (count - 1) * step >= s + pad else count)
    return tuple(counts)


def _conv(n: int) -> Callable[..., Shape]:
    def rule(
        input: Shape,
        weight: Shape,
        bias: Shape | None = None,
        stride: Shape = (1,),
        padding: Shape | str = (0,),
        dilation: Shape = (1,),
        groups: int = 1,
    ) -> Shape:
        _need(len(input) == len(weight) == n + 2, f"input {input}, weight {weight}")
        _need(
            input[1] == weight[1] * groups and weight[0] % groups == 0,
            f"input {input} does not fit weight {weight} in {groups} groups",
        )
        _need(bias is None or bias == weight[:1], f"bias {bias} does not fit weight {weight}")
        steps, spacing = _steps(stride, n), _steps(dilation, n)
        if padding == "same":
            _need(steps == (1,) * n, "padding 'same' goes with stride 1")
            return (input[0], weight[0], *input[2:])
        pads = (0,) * n if isinstance(padding, str) else _spread(padding, n)
        return (input[0], weight[0], *_windows(input[2:], weight[2:], steps, pads, spacing))

    return rule


def _pool(n: int) -> Callable[..., Shape]:
    def rule(
        self: Shape,
        kernel_size: Shape,
        stride: Shape = (),
        padding: Shape = (0,),
        dilation: Shape = (1,),
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> Shape:
        _need(len(self) == n + 2, f"input {self}, expected {n + 2} axes")
        kernel, pads = _spread(kernel_size, n), _spread(padding, n)
        _need(all(2 * p <= k for p, k in zip(pads, kernel, strict=True)), f"padding {padding}")
        steps = _steps(stride, n) if stride else kernel
        counts = _windows(self[2:], kernel, steps, pads, _steps(dilation, n), ceil_mode)
        return (*self[:2], *counts)

    return rule


def _adaptive(n: int) -> Callable[..., Shape]:
    def rule(self: Shape, output_size: Shape) -> Shape:
        _need(len(self) == n + 2 and len(output_size) == n, f"input {self} to {output_size}")
        return (*self[:2], *output_size)

    return rule


def _recurrent(gates: int) -> Callable[..., list[Shape]]:
    """A GRU (3 gates) or LSTM (4): [output, *last states]."""

    def rule(
        input: Shape,
        hx: Shape | tuple[Shape, ...],
        params: tuple[Shape, ...],
        has_biases: bool,
        num_layers: int,
        dropout: float,
        train: bool,
        bidirectional: bool,
        batch_first: bool,
    ) -> list[Shape]:
        states = [hx] if gates == 3 else list(hx)
        _need(len(states) == (1 if gates == 3 else 2), f"{len(states)} initial states")
        _need(len(input) == 3, f"input {input}, expected 3 axes")
        batch, directions = input[0 if batch_first else 1], 1 + bidirectional
        state = states[0]
        if not isinstance(state, tuple) or len(state) != 3:
            raise ValueError(f"initial state {state}, expected 3 axes")
        hidden = state[2]
        _need(
            all(s == (num_layers * directions, batch, hidden) for s in states),
            f"initial states {states}",
        )
        expected: list[Shape] = []
        for layer in range(min(num_layers, 1 + len(params))):
            width = input[2] if layer == 0 else hidden * directions
            one: list[Shape] = [(gates * hidden, width), (gates * hidden, hidden)]
            one += [(gates * hidden,)] * (2 if has_biases else 0)
            expected += one * directions
        _need(list(params) == expected, f"weights {str(params)[:200]}")
        return [(*input[:2], hidden * directions), *(state for _ in states)]

    return rule


def _group_norm(
    input: Shape,
    num_groups: int,
    weight: Shape | None = None,
    bias: Shape | None = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Shape:
    _need(len(input) > 1 and input[1] % num_groups == 0, f"{input} in {num_groups} groups")
    _need(all(t in (None, input[1:2]) for t in (weight, bias)), f"weight {weight}, bias {bias}")
    _need(bias is None or weight is not None, "a bias without a weight: torch cannot train that")
    return input


def _layer_norm(
    input: Shape,
    normalized_shape: Shape,
    weight: Shape | None = None,
    bias: Shape | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Shape:
    n = len(normalized_shape)
    _need(0 < n <= len(input) and input[-n:] == normalized_shape, f"{input}: {normalized_shape}")
    _need(all(t in (None, normalized_shape) for t in (weight, bias)), f"weight {weight}")
    _need(bias is None or weight is not None, "a bias without a weight: torch cannot train that")
    return input


def _reduce(self: Shape, dim: Axes = None, keepdim: bool = False) -> Shape:
    axes = _axes(dim, len(self))
    if keepdim:
        return tuple(1 if axis in axes else n for axis, n in enumerate(self))
    return tuple(n for axis, n in enumerate(self) if axis not in axes)


def _sized(elements: int, size: Shape) -> Shape:
    """`size` with its one -1 worked out."""
    known = math.prod(n for n in size if n != -1)
    if size.count(-1) == 1 and known and elements % known == 0:
        size = tuple(elements // known if n == -1 else n for n in size)
    _need(-1 not in size and math.prod(size) == elements, f"{elements} elements as {size}")
    return size


def _view(self: Shape, size: Shape) -> Shape:
    return _sized(math.prod(self), size)


def _reshape(self: Shape, shape: Shape) -> Shape:
    return _sized(math.prod(self), shape)


def _expand(self: Shape, size: Shape) -> Shape:
    _need(len(size) >= len(self), f"{self} to {size}")
    old = (1,) * (len(size) - len(self)) + self
    _need(all(n in (-1, m) or m == 1 for m, n in zip(old, size, strict=True)), f"{self} to {size}")
    return tuple(m if n == -1 else n for m, n in zip(old, size, strict=True))


def _flatten(self: Shape, start_dim: int = 0, end_dim: int = -1) -> Shape:
    start, end = _axis(start_dim, len(self)), _axis(end_dim, len(self))
    _need(start <= end, f"axes {start_dim} to {end_dim}")
    return (*self[:start], math.prod(self[start : end + 1]), *self[end + 1 :])


def _unflatten(self: Shape, dim: int, sizes: Shape) -> Shape:
    axis = _axis(dim, len(self))
    return (*self[:axis], *_sized(self[axis], sizes), *self[axis + 1 :])


def _permute(self: Shape, dims: Axes) -> Shape:
    axes = _axes(dims, len(self))
    _need(len(axes) == len(self), f"{self} by {dims}")
    return tuple(self[axis] for axis in axes)


def _transpose(self: Shape, dim0: int, dim1: int) -> Shape:
    shape = list(self)
    a, b = _axis(dim0, len(self)), _axis(dim1, len(self))
    shape[a], shape[b] = shape[b], shape[a]
    return tuple(shape)


def _t(self: Shape) -> Shape:
    _need(len(self) <= 2, f"{self} has over two axes")
    return self[::-1]


def _unsqueeze(self: Shape, dim: int) -> Shape:
    axis = _axis(dim, len(self) + 1)
    return (*self[:axis], 1, *self[axis:])


def _squeeze(self: Shape, dim: int) -> Shape:
    axis = _axis(dim, len(self))
    return self[:axis] + self[axis + 1 :] if self[axis] == 1 else self


def _cat(tensors: tuple[Shape, ...], dim: int = 0) -> Shape:
    axis = _axis(dim, len(tensors[0]))
    rests = {(*shape[:axis], 0, *shape[axis + 1 :]) for shape in tensors}
    _need(len(rests) == 1, f"{tensors} along {dim}")
    return (*tensors[0][:axis], sum(s[axis] for s in tensors), *tensors[0][axis + 1 :])


def _stack(tensors: tuple[Shape, ...], dim: int = 0) -> Shape:
    _need(len(set(tensors)) == 1, f"{tensors} differ")
    axis = _axis(dim, len(tensors[0]) + 1)
    return (*tensors[0][:axis], len(tensors), *tensors[0][axis:])


def _slice(
    self: Shape, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Shape:
    axis = _axis(dim, len(self))
    length = len(range(*slice(start, end, step).indices(self[axis])))
    return (*self[:axis], length, *self[axis + 1 :])


def _select(self: Shape, dim: int, index: int) -> Shape:
    axis = _axis(dim, len(self))
    _need(-self[axis] <= index < self[axis], f"index {index} on axis {dim} of {self}")
    return self[:axis] + self[axis + 1 :]


def _unbind(self: Shape, dim: int = 0) -> list[Shape]:
    axis = _axis(dim, len(self))
    _need(self[axis] <= 4096, f"{self[axis]} pieces")
    return [self[:axis] + self[axis + 1 :]] * self[axis]


def _split(self: Shape, split_size: int, dim: int = 0) -> list[Shape]:
    axis = _axis(dim, len(self))
    _need(self[axis] <= 4096 * split_size, f"over 4096 pieces of {self}")
    return [
        (*self[:axis], min(split_size, self[axis] - at), *self[axis + 1 :])
        for at in range(0, self[axis], split_size)
    ]


def _chunk(self: Shape, chunks: int, dim: int = 0) -> list[Shape]:
    return _split(self, max(1, -(-self[_axis(dim, len(self))] // chunks)), dim)


def _split_with_sizes(self: Shape, split_sizes: Shape, dim: int = 0) -> list[Shape]:
    axis = _axis(dim, len(self))
    _need(sum(split_sizes) == self[axis], f"{self} in {split_sizes}")
    return [(*self[:axis], n, *self[axis + 1 :]) for n in split_sizes]


def _filled(size: Shape) -> Shape:
    _need(min(size, default=0) >= 0, f"size {size}")
    return size


def _sym_size(self: Shape, dim: int) -> int:
    return self[_axis(dim, len(self))]


def _getitem(self: list[Shape], index: int) -> Shape:
    return self[index]


_RULES: Final[Mapping[str, Callable[..., Result]]] = {
    "aten.linear.default": _linear,
    "aten.matmul.default": _matmul,
    "aten.mm.default": _mm,
    "aten.bmm.default": _bmm,
    "aten.addmm.default": _addmm,
    "aten.conv1d.default": _conv(1),
    "aten.conv1d.padding": _conv(1),
    "aten.conv2d.default": _conv(2),
    "aten.conv2d.padding": _conv(2),
    "aten.max_pool1d.default": _pool(1),
    "aten.max_pool2d.default": _pool(2),
    "aten.avg_pool1d.default": _pool(1),
    "aten.avg_pool2d.default": _pool(2),
    "aten.adaptive_avg_pool1d.default": _adaptive(1),
    "aten.adaptive_avg_pool2d.default": _adaptive(2),
    "aten.gru.input": _recurrent(3),
    "aten.lstm.input": _recurrent(4),
    "aten.group_norm.default": _group_norm,
    "aten.layer_norm.default": _layer_norm,
    "aten.dropout.default": _same_input,
    "aten.softmax.int": _along,
    "aten.log_softmax.int": _along,
    **{f"aten.{name}.Tensor": _binary for name in ("add", "sub", "mul", "div")},
    "aten.rsub.Scalar": _binary,
    "aten.mean.default": _reduce,
    "aten.mean.dim": _reduce,
    "aten.sum.default": _reduce,
    "aten.sum.dim_IntList": _reduce,
    "aten.amax.default": _reduce,
    "aten.view.default": _view,
    "aten.reshape.default": _reshape,
    "aten.expand.default": _expand,
    "aten.flatten.using_ints": _flatten,
    "aten.unflatten.int": _unflatten,
    "aten.permute.default": _permute,
    "aten.transpose.int": _transpose,
    "aten.t.default": _t,
    "aten.unsqueeze.default": _unsqueeze,
    "aten.squeeze.dim": _squeeze,
    "aten.cat.default": _cat,
    "aten.stack.default": _stack,
    "aten.slice.Tensor": _slice,
    "aten.select.int": _select,
    "aten.unbind.int": _unbind,
    "aten.chunk.default": _chunk,
    "aten.split.Tensor": _split,
    "aten.split_with_sizes.default": _split_with_sizes,
    "aten.zeros.default": _filled,
    "aten.ones.default": _filled,
    "aten.sym_size.int": _sym_size,
    "getitem": _getitem,
    **{
        f"aten.{name}.default": _same
        for name in (
            *("relu", "leaky_relu", "elu", "gelu", "silu", "hardswish", "hardtanh", "softplus"),
            *("sigmoid", "tanh", "neg", "abs", "exp", "log", "sqrt"),
            *("contiguous", "clone"),
        )
    },
    "aten.clamp.default": _clamp,
    "aten.pow.Tensor_Scalar": _same,
}
