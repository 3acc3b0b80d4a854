"""Where vectors come from and go to: pointers, whole and partial loads and stores, numbers on the stack.

Every index counts elements from a pointer, in 64 bits. Float16 and bfloat16, which Numba has not, travel as the
integers of their bits: uint16 is float16, int16 bfloat16. They are floats from the load to the store.
"""

from __future__ import annotations

from math import inf
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from fastsoftmax.backends.numba.vectors import (
    F16C,
    Value,
    Vector,
    bits,
    call_llvm,
    choose,
    cut,
    first_lane,
    formula,
    lanes_of,
    lengthened,
    llvm_type,
    splat,
    suffix,
    vector_of,
)

# So many slices at most stand side by side: for each of their numbers there is room on the stack.
PANEL = 256

# So much of a panel waits on the stack (``rooms``), of a thread that may have half a megabyte: the exponentials of a
# panel of rows of halves, each of which begins at a vector's boundary, or 128 rows of 256 float32 side by side.
ROOM_BYTES = (1 << 17) + 1024

HALF, BFLOAT16 = types.uint16, types.int16


def computing(element: types.Type) -> types.Type:
    """Give the dtype that elements are computed in."""
    return types.float32 if element in (HALF, BFLOAT16) else element


@intrinsic
def pointer(typing_context, array):
    """Where an array's first element stands."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        return context.make_array(array)(context, builder, values[0]).data

    return types.CPointer(array.dtype)(array), codegen


@formula
def lanes(x):
    """How many elements of a pointer make a vector."""
    return Value(x.builder, types.int64, ir.Constant(ir.IntType(64), lanes_of(computing(x.dtype))))


@formula
def constant(x, number):
    """A vector, as they are loaded from the pointer x, with a number in each lane."""
    return splat(Value(x.builder, vector_of(computing(x.dtype)), None), number)


# The stack.


def _on_stack(x: Value, element: types.Type, count: int = PANEL) -> Value:
    def instruction(builder: ir.IRBuilder) -> ir.Value:
        kind = llvm_type(element)
        with builder.goto_entry_block():  # once a call, wherever it stands
            room = builder.alloca(ir.ArrayType(kind, count))
            room.align = 64
        return builder.bitcast(room, kind.as_pointer())

    return x.like(types.CPointer(element), instruction)


@formula
def panel_numbers(x):
    """PANEL numbers on the stack, of the dtype that x's elements are computed in; x is a pointer."""
    return _on_stack(x, computing(x.dtype))


@formula
def panel_doubles(x):
    """PANEL numbers of float64 on the stack; x is a pointer."""
    return _on_stack(x, types.float64)


@formula
def panel_integers(x):
    """PANEL integers of 64 bits on the stack; x is a pointer."""
    return _on_stack(x, types.int64)


@formula
def panel_room(x):
    """A place on the stack for a panel's numbers, of the dtype that x's elements are computed in; x is a pointer."""
    element = computing(x.dtype)
    return _on_stack(x, element, ROOM_BYTES * 8 // element.bitwidth)


@formula
def room_size(room):
    """How many numbers it holds."""
    return Value(room.builder, types.int64, ir.Constant(ir.IntType(64), ROOM_BYTES * 8 // room.dtype.bitwidth))


# Halves.


def _as_half(v: Value, kind: types.Type) -> Value:
    return v.like(kind, lambda builder: builder.bitcast(v.llvm, llvm_type(kind)))


def _from_half(half: Value) -> Value:
    wide = Vector(types.float32, half.lanes)
    if F16C:
        hardware = _as_half(half, Vector(types.float16, half.lanes))
        return half.like(wide, lambda builder: builder.fpext(hardware.llvm, llvm_type(wide)))
    x = lengthened(half, types.int32)
    rest = x & 0x7FFF
    digits = rest << 13
    # A float of the same digits, 112 binades too low: the multiplication rights normal and subnormal alike.
    finite = bits(bits(digits) * 2.0**112)
    return bits(((x & 0x8000) << 16) | choose(rest < 0x7C00, finite, digits | 0x7F800000))


def _to_half(x: Value) -> Value:
    if F16C:
        kind = Vector(types.float16, x.lanes)
        rounded = x.like(kind, lambda builder: builder.fptrunc(x.llvm, llvm_type(kind)))
        return _as_half(rounded, Vector(HALF, x.lanes))
    pattern = bits(x)
    magnitude = pattern & 0x7FFFFFFF
    digits = magnitude >> 13
    normal = ((magnitude + 0xFFF + (digits & 1)) - 0x38000000) >> 13
    # Below the normal range: adding 0.5, whose last place is the spacing of the subnormals, rounds.
    subnormal = bits(bits(magnitude) + 0.5) - 0x3F000000
    result = choose(magnitude < 0x38800000, subnormal, normal)
    result = choose(magnitude < 0x477FF000, result, 0x7C00)  # from there it rounds to 65536 or more
    result = choose(magnitude > 0x7F800000, (digits & 0x3FF) | 0x7E00, result)
    return cut((pattern >> 16 & 0x8000) | result, HALF)


def _from_bfloat16(half: Value) -> Value:
    return bits(lengthened(half, types.int32) << 16)


def _to_bfloat16(x: Value) -> Value:
    pattern = bits(x)
    to_even = pattern + (pattern >> 16 & 1) + 0x7FFF
    return cut(choose(x == x, to_even, pattern | 0x400000) >> 16, BFLOAT16)


_FROM = {HALF: _from_half, BFLOAT16: _from_bfloat16}
_TO = {HALF: _to_half, BFLOAT16: _to_bfloat16}


# Loads and stores.


def _address(builder: ir.IRBuilder, base: Value, i: Value, kind: types.Type) -> ir.Value:
    return builder.bitcast(builder.gep(base.llvm, [i.llvm]), llvm_type(kind).as_pointer())


def _first_lanes(count: Value, lanes: int) -> Value:
    """Give the mask of the first `count` lanes."""
    kind = Vector(types.int32, lanes)
    numbers = ir.Constant(llvm_type(kind), list(range(lanes)))
    return Value(count.builder, kind, numbers) < count


def _masked(builder: ir.IRBuilder, name: str, result: ir.Type, kind: types.Type, arguments: list[ir.Value]) -> ir.Value:
    """Call llvm.masked.load or .store, whose name says the types of the vector and (once) of what is pointed to."""
    return call_llvm(builder, f"llvm.masked.{name}.{suffix(kind)}.p0{suffix(kind)}", result, arguments)


def _load(base: Value, i: Value, count: Value | None, fill: float) -> Value:
    element = base.dtype
    kind = Vector(element, lanes_of(computing(element)))
    size = element.bitwidth // 8
    convert = _FROM.get(element, lambda loaded: loaded)
    if count is None:
        return convert(base.like(kind, lambda builder: builder.load(_address(builder, base, i, kind), align=size)))
    mask = _first_lanes(count, kind.lanes)
    instead = splat(Value(base.builder, kind, None), _FILLS[fill].get(element, fill))

    def instruction(builder: ir.IRBuilder) -> ir.Value:
        address = _address(builder, base, i, kind)
        align = ir.Constant(ir.IntType(32), size)
        return _masked(builder, "load", llvm_type(kind), kind, [address, align, mask.llvm, instead.llvm])

    return convert(base.like(kind, instruction))


# What the lanes that are not loaded hold. It is a part of the load: with a selection by the same mask afterwards, and
# arithmetic between the two, LLVM (22 and before) loads without the mask, beyond the array's end.
_FILLS = {0.0: {HALF: 0, BFLOAT16: 0}, -inf: {HALF: 0xFC00 - 0x10000, BFLOAT16: 0xFF80 - 0x10000}}


@formula
def load_some(base, i, count):
    """The first `count` lanes from element i on, zero in the others; all of them where count is None."""
    return _load(base, i, count, 0.0)


@formula
def load_logits(base, i, count):
    """The same with -inf in the others, whose exponential is zero."""
    return _load(base, i, count, -inf)


@formula
def load(base, i):
    """The vector from element i on."""
    return _load(base, i, None, 0.0)


@formula
def store_some(v, base, i, count):
    """Write the first `count` lanes to element i and those that follow; all of them where count is None."""
    element = base.dtype
    size = element.bitwidth // 8
    value = _TO[element](v) if element in _TO else v
    builder = v.builder
    if builder is None:
        return
    address = _address(builder, base, i, value.type)
    if count is None:
        builder.store(value.llvm, address, align=size)
        return
    # LLVM (20 and before) makes of a masked store of one lane, where it knows that it is one, a store of a whole word
    # if the lanes were cut from words, as bfloat16's are: the next element would be overwritten.
    single = builder.icmp_signed("==", count.llvm, ir.Constant(count.llvm.type, 1))
    with builder.if_else(single) as (one, several):
        with one:
            builder.store(first_lane(value).llvm, builder.gep(base.llvm, [i.llvm]))
        with several:
            align = ir.Constant(ir.IntType(32), size)
            mask = _first_lanes(count, value.lanes)
            _masked(builder, "store", ir.VoidType(), value.type, [value.llvm, address, align, mask.llvm])


@formula
def store(v, base, i):
    """Write a vector to element i and those that follow."""
    store_some(v, base, i, None)


@formula
def keep_first(v, count):
    """The first `count` lanes, zero in the others; v where count is None."""
    return v if count is None else choose(_first_lanes(count, v.lanes), v, 0)


@formula
def address(base):
    """A pointer as an integer."""
    return base.like(types.int64, lambda builder: builder.ptrtoint(base.llvm, ir.IntType(64)))


@formula
def shifted(base, i):
    """The pointer to element i."""
    return base.like(base.type, lambda builder: builder.gep(base.llvm, [i.llvm]))


@formula
def get(base, i):
    """Element i of a pointer to floats or integers that are computed as they are."""
    return base.like(base.dtype, lambda builder: builder.load(builder.gep(base.llvm, [i.llvm])))


@formula
def as_label(number):
    """An integer of any kind in 64 bits; the least one in the place of what is too large for them."""
    label = splat(Value(number.builder, types.int64, None), number)
    if number.dtype == types.uint64:
        return choose(label < 0, -(2**63), label)
    return label


@formula
def label_at(labels, i):
    """Label i of a pointer to integers of any kind."""
    return as_label(get(labels, i))


@formula
def put(base, i, number):
    """Write a number to element i of such a pointer."""
    value = splat(Value(base.builder, base.dtype, None), number)
    if base.builder is not None:
        base.builder.store(value.llvm, base.builder.gep(base.llvm, [i.llvm]))


@formula
def element(base, i):
    """Element i as it is computed with."""
    return first_lane(load_some(base, i, Value(base.builder, types.int64, ir.Constant(ir.IntType(64), 1))))
