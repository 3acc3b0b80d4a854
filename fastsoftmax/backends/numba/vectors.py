"""Vectors as Numba values, and formulas over them.

A ``Vector`` is one of LLVM's own, as wide as the machine's widest, so what runs is what is written, lane by lane: no
loop waits to be vectorised, no addition is ever reassociated, and no fast-math flag is set anywhere. LLVM's vectoriser
would have to be told that sums may be reordered, and then chooses the order itself, another one where an array may
overlap another.

A ``formula`` is a Python function without loops that compiled code can call. It is not compiled: it is run while its
caller is, on ``Value``s, whose operators leave instructions behind instead of computing. So formulas may ask for the
dtype of their arguments, call each other, and cost Numba next to nothing (a compiled function of their own would take
it some 20 ms each).
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from typing import Any

from llvmlite import binding, ir
from numba.core import config, types
from numba.core.codegen import get_host_cpu_features
from numba.extending import lower_builtin, models, register_model, type_callable

# What Numba compiles for, as its own settings have it.
_FEATURES = (get_host_cpu_features() if config.CPU_FEATURES is None else config.CPU_FEATURES).split(",")
_X86 = binding.get_process_triple().startswith("x86_64")

VECTOR_BYTES = 64 if "+avx512bw" in _FEATURES else 32 if "+avx2" in _FEATURES else 16

# Whether a multiply-add is one instruction, rounded once. (LLVM's own would call a slow function where it is none.)
FUSED = not _X86 or "+fma" in _FEATURES
F16C = "+f16c" in _FEATURES


class Vector(types.Type):
    """Lanes of one dtype."""

    def __init__(self, dtype: types.Type, lanes: int) -> None:
        self.dtype = dtype
        self.lanes = lanes
        super().__init__(name=f"Vector({dtype}, {lanes})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, llvm_type(vector))


def lanes_of(dtype: types.Type) -> int:
    """Count the lanes of a whole vector."""
    return VECTOR_BYTES * 8 // dtype.bitwidth


def vector_of(dtype: types.Type) -> Vector:
    """Give the type of a whole vector."""
    return Vector(dtype, lanes_of(dtype))


def llvm_type(t: types.Type) -> ir.Type:
    """Give LLVM's type of a vector or a number."""
    if isinstance(t, Vector):
        return ir.VectorType(llvm_type(t.dtype), t.lanes)
    if isinstance(t, types.Float):
        return {16: ir.HalfType(), 32: ir.FloatType(), 64: ir.DoubleType()}[t.bitwidth]
    return ir.IntType(1 if t == types.boolean else t.bitwidth)


# Values.


class Value:
    """A vector, number or pointer in a formula: its type and, while instructions are written, LLVM's value."""

    def __init__(self, builder: ir.IRBuilder | None, kind: types.Type, llvm: ir.Value | None) -> None:
        self.builder = builder  # None while Numba only asks for the type of the result
        self.type = kind
        self.llvm = llvm

    @property
    def dtype(self) -> types.Type:
        """Of the lanes, of the number, or of what a pointer points to."""
        return getattr(self.type, "dtype", self.type)

    @property
    def lanes(self) -> int:
        """How many there are."""
        return self.type.lanes

    @property
    def is_float(self) -> bool:
        """Whether floating."""
        return isinstance(self.dtype, types.Float)

    def like(self, kind: types.Type, instruction: Callable[[ir.IRBuilder], ir.Value]) -> Value:
        """Make a value by an instruction."""
        return Value(self.builder, kind, None if self.builder is None else instruction(self.builder))


def _define_operator(
    symbol: Callable, name: str, of_floats: str | None, of_integers: str | None, sign: str = ""
) -> None:
    """Give Value an operator, and compiled code the same one for vectors."""

    def apply(a: Any, b: Any) -> Value:
        a, b = common(a, b)
        method = of_floats if a.is_float else of_integers
        result = _with_dtype(a.type, types.boolean) if sign else a.type
        before = (sign,) if sign else ()
        return a.like(result, lambda builder: getattr(builder, method)(*before, a.llvm, b.llvm))

    setattr(Value, f"__{name}__", apply)
    if not sign:
        setattr(Value, f"__r{name}__", lambda b, a: apply(a, b))
    pairs = (Vector, Vector), (Vector, types.Number), (types.Number, Vector)
    _offer(symbol, apply, lambda a, b: isinstance(a, Vector) or isinstance(b, Vector), pairs)


def _with_dtype(t: types.Type, dtype: types.Type) -> types.Type:
    return Vector(dtype, t.lanes) if isinstance(t, Vector) else dtype


def common(*operands: Any) -> list[Value]:
    """Bring values and Python's numbers to the type of an operation: the vectors', or the first value's."""
    values = [v for v in operands if isinstance(v, Value)]
    kind = next((v for v in values if isinstance(v.type, Vector)), values[0])
    return [splat(kind, v) for v in operands]


def splat(like: Value, number: Any) -> Value:
    """A value of the type of another, with a number in each lane; a value of that type as it is."""
    if isinstance(number, Value) and number.type == like.type:
        return number
    element = llvm_type(like.dtype)

    def instruction(builder: ir.IRBuilder) -> ir.Value:
        if not isinstance(number, Value):
            value = ir.Constant(element, float(number) if like.is_float else int(number))
        else:
            value = _converted(builder, number, like.dtype)
        if not isinstance(like.type, Vector):
            return value
        if isinstance(value, ir.Constant):
            return ir.Constant(llvm_type(like.type), [value.constant] * like.lanes)
        kind = llvm_type(like.type)
        first = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
        return builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(ir.IntType(32), like.lanes), None))

    return like.like(like.type, instruction)


def _converted(builder: ir.IRBuilder, number: Value, wanted: types.Type) -> ir.Value:
    kind, given = llvm_type(wanted), number.dtype
    if given == wanted:
        return number.llvm
    if isinstance(given, types.Float):
        return (builder.fptrunc if given.bitwidth > wanted.bitwidth else builder.fpext)(number.llvm, kind)
    if isinstance(wanted, types.Float):
        return (builder.sitofp if given.signed else builder.uitofp)(number.llvm, kind)
    if given.bitwidth >= wanted.bitwidth:
        return builder.trunc(number.llvm, kind) if given.bitwidth > wanted.bitwidth else number.llvm
    return (builder.sext if given.signed else builder.zext)(number.llvm, kind)


# Formulas in compiled code.


def _value_from(context: Any, builder: ir.IRBuilder | None, kind: types.Type, llvm: ir.Value | None) -> Any:
    """Give an argument as a formula sees it: tuples as tuples, None as None, what has no value as its type."""
    kind = types.unliteral(kind)
    if kind == types.none:
        return None
    if isinstance(kind, types.BaseTuple):
        parts = [
            _value_from(context, builder, t, None if builder is None else builder.extract_value(llvm, i))
            for i, t in enumerate(kind)
        ]
        return kind.instance_class(*parts) if isinstance(kind, types.BaseNamedTuple) else tuple(parts)
    if isinstance(kind, (Vector, types.Number, types.Boolean, types.CPointer)):
        return Value(builder, kind, llvm)
    return kind


def _type_of(result: Any) -> types.Type:
    if result is None:
        return types.none
    if isinstance(result, tuple):
        pyclass = type(result) if hasattr(result, "_fields") else None
        return types.BaseTuple.from_types([_type_of(part) for part in result], pyclass)
    return result.type


def _llvm_of(context: Any, builder: ir.IRBuilder, result: Any) -> ir.Value:
    if result is None:
        return context.get_dummy_value()
    if isinstance(result, tuple):
        return context.make_tuple(builder, _type_of(result), [_llvm_of(context, builder, part) for part in result])
    return result.llvm


def _offer(
    name: Callable,
    function: Callable,
    accepts: Callable[..., bool] = lambda *arguments: True,
    kinds: tuple = ((types.VarArg(types.Any),),),
) -> None:
    """Let compiled code call `function` by a name, with such kinds of arguments."""

    @type_callable(name)
    def typing(context: Any) -> Callable:
        def typer(*arguments: types.Type) -> types.Type | None:
            if not accepts(*arguments):
                return None
            return _type_of(function(*[_value_from(context, None, t, None) for t in arguments]))

        typer.pysig = inspect.signature(function)
        return typer

    def lowering(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        arguments = [_value_from(context, builder, t, v) for t, v in zip(signature.args, values, strict=True)]
        return _llvm_of(context, builder, function(*arguments))

    for kind in kinds:
        lower_builtin(name, *kind)(lowering)


def formula(function: Callable) -> Callable:
    """Decorate a formula."""
    _offer(function, function)
    return function


for _symbol, _name, _of_floats, _of_integers in [
    (operator.add, "add", "fadd", "add"),
    (operator.sub, "sub", "fsub", "sub"),
    (operator.mul, "mul", "fmul", "mul"),
    (operator.truediv, "truediv", "fdiv", None),
    (operator.and_, "and", None, "and_"),
    (operator.or_, "or", None, "or_"),
    (operator.lshift, "lshift", None, "shl"),
    (operator.rshift, "rshift", None, "lshr"),  # of bits: zeros come in
]:
    _define_operator(_symbol, _name, _of_floats, _of_integers)
for _symbol, _name, _sign in [(operator.lt, "lt", "<"), (operator.gt, "gt", ">"), (operator.eq, "eq", "==")]:
    _define_operator(_symbol, _name, "fcmp_ordered", "icmp_signed", _sign)

formula(splat)


def call_llvm(builder: ir.IRBuilder, name: str, result: ir.Type, arguments: list[ir.Value]) -> ir.Value:
    """Call a function of LLVM's by its full name."""
    function = builder.module.globals.get(name)
    if function is None:
        function = ir.Function(builder.module, ir.FunctionType(result, [a.type for a in arguments]), name)
    return builder.call(function, arguments)


def suffix(t: types.Type) -> str:
    """Name a type as the names of LLVM's functions do."""
    letter = f"{'f' if isinstance(getattr(t, 'dtype', t), types.Float) else 'i'}{getattr(t, 'dtype', t).bitwidth}"
    return f"v{t.lanes}{letter}" if isinstance(t, Vector) else letter


@formula
def fma(a, b, c):
    """A * b + c, rounded once where FUSED, else twice."""
    if not FUSED:
        return a * b + c
    a, b, c = common(a, b, c)
    arguments = [a.llvm, b.llvm, c.llvm]
    return a.like(
        a.type, lambda builder: call_llvm(builder, f"llvm.fma.{suffix(a.type)}", llvm_type(a.type), arguments)
    )


@formula
def magnitude(a):
    """A without its sign."""
    return a.like(
        a.type, lambda builder: call_llvm(builder, f"llvm.fabs.{suffix(a.type)}", llvm_type(a.type), [a.llvm])
    )


@formula
def choose(mask, a, b):
    """A where the mask is set, else b."""
    a, b = common(a, b)
    return a.like(a.type, lambda builder: builder.select(mask.llvm, a.llvm, b.llvm))


@formula
def smaller(a, b):
    """The smaller of a and b; b where either is NaN."""
    a, b = common(a, b)
    return choose(a < b, a, b)


@formula
def larger(a, b):
    """The larger of a and b; b where either is NaN."""
    a, b = common(a, b)
    return choose(a > b, a, b)


_BITS = {
    types.float32: types.int32,
    types.float64: types.int64,
    types.int32: types.float32,
    types.int64: types.float64,
}


@formula
def bits(a):
    """The bit patterns of floats as integers, or those integers as the floats again."""
    kind = _with_dtype(a.type, _BITS[a.dtype])
    return a.like(kind, lambda builder: builder.bitcast(a.llvm, llvm_type(kind)))


def cut(a: Value, dtype: types.Type) -> Value:
    """Integers as shorter ones."""
    kind = _with_dtype(a.type, dtype)
    return a.like(kind, lambda builder: builder.trunc(a.llvm, llvm_type(kind)))


def lengthened(a: Value, dtype: types.Type) -> Value:
    """Integers as longer ones, with zeros in front."""
    kind = _with_dtype(a.type, dtype)
    return a.like(kind, lambda builder: builder.zext(a.llvm, llvm_type(kind)))


@formula
def exponent(t):
    """2^(j - bias) from the low bits j of t = 1.5 * 2^23 + j (2^52 in float64)."""
    return bits(bits(t) << (23 if t.dtype == types.float32 else 52))


def part(v: Value, first: int, count: int) -> Value:
    """Some lanes."""
    order = ir.Constant(ir.VectorType(ir.IntType(32), count), list(range(first, first + count)))
    return v.like(Vector(v.dtype, count), lambda builder: builder.shuffle_vector(v.llvm, v.llvm, order))


@formula
def lower_half(v):
    """The first half of the lanes."""
    return part(v, 0, v.lanes // 2)


@formula
def upper_half(v):
    """The second half of the lanes."""
    return part(v, v.lanes // 2, v.lanes // 2)


@formula
def first_lane(v):
    """The first lane, a number."""
    return v.like(v.dtype, lambda builder: builder.extract_element(v.llvm, ir.Constant(ir.IntType(32), 0)))


@formula
def largest_lane(v):
    """The largest of the lanes, a number; NaN may count or not."""
    return first_lane(v) if v.lanes == 1 else largest_lane(larger(lower_half(v), upper_half(v)))


@formula
def widened(v):
    """Float32 as float64."""
    kind = _with_dtype(v.type, types.float64)
    return v.like(kind, lambda builder: builder.fpext(v.llvm, llvm_type(kind)))


@formula
def narrowed(low, high):
    """Two vectors of float64, rounded, as one of float32."""
    count = low.lanes
    half = ir.VectorType(ir.FloatType(), count)
    order = ir.Constant(ir.VectorType(ir.IntType(32), 2 * count), list(range(2 * count)))
    return low.like(
        Vector(types.float32, 2 * count),
        lambda builder: builder.shuffle_vector(
            builder.fptrunc(low.llvm, half), builder.fptrunc(high.llvm, half), order
        ),
    )
