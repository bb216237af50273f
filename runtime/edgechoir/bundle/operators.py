"""The aten operators a training graph may use, and what each of their arguments may be.

One line an operator, written like its signature: `name:kind`, in brackets where it may be left out,
`-> kind` where the result is not one tensor. The names are those of the aten schema. Only pure
functions of their arguments stand here: nothing that writes in place, reads a file or loads code.

The ranges keep a hostile graph from asking for memory or time that no honest model needs. They
bound one argument; shapes.py bounds what a whole graph comes to.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

Result = Literal["tensor", "tensors", "int"]

_TABLE: Final = """
aten.linear.default         input:tensor weight:tensor [bias:tensor?]
aten.matmul.default         self:tensor other:tensor
aten.mm.default             self:tensor mat2:tensor
aten.bmm.default            self:tensor mat2:tensor
aten.addmm.default          self:tensor mat1:tensor mat2:tensor
aten.conv1d.default         input:tensor weight:tensor [bias:tensor?] [stride:steps] [padding:pads] [dilation:steps] [groups:count]
aten.conv2d.default         input:tensor weight:tensor [bias:tensor?] [stride:steps] [padding:pads] [dilation:steps] [groups:count]
aten.conv1d.padding         input:tensor weight:tensor [bias:tensor?] [stride:steps] [padding:same|valid] [dilation:steps] [groups:count]
aten.conv2d.padding         input:tensor weight:tensor [bias:tensor?] [stride:steps] [padding:same|valid] [dilation:steps] [groups:count]
aten.max_pool1d.default     self:tensor kernel_size:steps [stride:steps] [padding:pads] [dilation:steps] [ceil_mode:bool]
aten.max_pool2d.default     self:tensor kernel_size:steps [stride:steps] [padding:pads] [dilation:steps] [ceil_mode:bool]
aten.avg_pool1d.default     self:tensor kernel_size:steps [stride:steps] [padding:pads] [ceil_mode:bool] [count_include_pad:bool]
aten.avg_pool2d.default     self:tensor kernel_size:steps [stride:steps] [padding:pads] [ceil_mode:bool] [count_include_pad:bool]
aten.adaptive_avg_pool1d.default  self:tensor output_size:steps
aten.adaptive_avg_pool2d.default  self:tensor output_size:steps
aten.gru.input              input:tensor hx:tensor params:tensors has_biases:bool num_layers:count dropout:share train:bool bidirectional:bool batch_first:bool -> tensors
aten.lstm.input             input:tensor hx:tensors params:tensors has_biases:bool num_layers:count dropout:share train:bool bidirectional:bool batch_first:bool -> tensors
aten.group_norm.default     input:tensor num_groups:count [weight:tensor?] [bias:tensor?] [eps:float] [cudnn_enabled:bool]
aten.layer_norm.default     input:tensor normalized_shape:steps [weight:tensor?] [bias:tensor?] [eps:float] [cudnn_enable:bool]
aten.dropout.default        input:tensor p:share train:bool
aten.relu.default           self:tensor
aten.leaky_relu.default     self:tensor [negative_slope:float]
aten.elu.default            self:tensor [alpha:float] [scale:float] [input_scale:float]
aten.gelu.default           self:tensor [approximate:none|tanh]
aten.silu.default           self:tensor
aten.hardswish.default      self:tensor
aten.hardtanh.default       self:tensor [min_val:float] [max_val:float]
aten.softplus.default       self:tensor [beta:float] [threshold:float]
aten.sigmoid.default        self:tensor
aten.tanh.default           self:tensor
aten.softmax.int            self:tensor dim:axis
aten.log_softmax.int        self:tensor dim:axis
aten.add.Tensor             self:tensor other:operand [alpha:float]
aten.sub.Tensor             self:tensor other:operand [alpha:float]
aten.rsub.Scalar            self:tensor other:float [alpha:float]
aten.mul.Tensor             self:tensor other:operand
aten.div.Tensor             self:tensor other:operand
aten.pow.Tensor_Scalar      self:tensor exponent:float
aten.neg.default            self:tensor
aten.abs.default            self:tensor
aten.exp.default            self:tensor
aten.log.default            self:tensor
aten.sqrt.default           self:tensor
aten.clamp.default          self:tensor [min:float?] [max:float?]
aten.mean.default           self:tensor
aten.mean.dim               self:tensor dim:axes? [keepdim:bool]
aten.sum.default            self:tensor
aten.sum.dim_IntList        self:tensor dim:axes? [keepdim:bool]
aten.amax.default           self:tensor [dim:axes] [keepdim:bool]
aten.view.default           self:tensor size:size
aten.reshape.default        self:tensor shape:size
aten.expand.default         self:tensor size:size
aten.flatten.using_ints     self:tensor [start_dim:axis] [end_dim:axis]
aten.unflatten.int          self:tensor dim:axis sizes:size
aten.permute.default        self:tensor dims:axes
aten.transpose.int          self:tensor dim0:axis dim1:axis
aten.t.default              self:tensor
aten.unsqueeze.default      self:tensor dim:axis
aten.squeeze.dim            self:tensor dim:axis
aten.contiguous.default     self:tensor
aten.clone.default          self:tensor
aten.cat.default            tensors:tensors [dim:axis]
aten.stack.default          tensors:tensors [dim:axis]
aten.slice.Tensor           self:tensor [dim:axis] [start:index?] [end:index?] [step:count]
aten.select.int             self:tensor dim:axis index:index
aten.unbind.int             self:tensor [dim:axis] -> tensors
aten.chunk.default          self:tensor chunks:count [dim:axis] -> tensors
aten.split.Tensor           self:tensor split_size:count [dim:axis] -> tensors
aten.split_with_sizes.default  self:tensor split_sizes:steps [dim:axis] -> tensors
aten.zeros.default          size:size
aten.ones.default           size:size
aten.sym_size.int           self:tensor dim:axis -> int
getitem                     self:tuple index:index
"""  # noqa: E501  a table reads best with one row a line


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument: its kind, whether it may be left out, and whether it may be null."""

    kind: str
    required: bool
    nullable: bool


@dataclass(frozen=True, slots=True)
class Operator:
    """One allowed operator: its arguments by name, and what it gives back."""

    name: str
    arguments: Mapping[str, Argument]
    result: Result


def _argument(text: str) -> tuple[str, Argument]:
    name, kind = text.strip("[]").split(":")
    return name, Argument(kind.rstrip("?"), not text.startswith("["), kind.endswith("?"))


def _operator(line: str) -> Operator:
    signature, _, result = line.partition(" -> ")
    name, *arguments = signature.split()
    kinds: dict[str, Result] = {"": "tensor", "tensors": "tensors", "int": "int"}
    return Operator(name, dict(map(_argument, arguments)), kinds[result])


OPERATORS: Final[Mapping[str, Operator]] = {
    operator.name: operator for operator in map(_operator, _TABLE.strip().splitlines())
}
