//! What each instruction costs: a part of the profile, written out, because the engine's own table may change.
//!
//! A call of a function costs 255, which is what bounds the depth of the stack (see [`crate::engine`]).
//! What the compiler makes no code for is free; everything else costs 1, and what works on a range of bytes
//! or elements one more for each.

use wasmtime::{OperatorCost, VariableOperatorCost};

/// What a call costs, by name or through a table.
pub(crate) const CALL: u8 = 255;

macro_rules! cost_of {
    (Nop) => {
        0
    };
    (Drop) => {
        0
    };
    (Block) => {
        0
    };
    (Loop) => {
        0
    };
    (Unreachable) => {
        0
    };
    (Return) => {
        0
    };
    (Else) => {
        0
    };
    (End) => {
        0
    };
    (Call) => {
        CALL
    };
    (CallIndirect) => {
        CALL
    };
    ($other:ident) => {
        1
    };
}

macro_rules! table {
    ($(@$proposal:ident $op:ident $({ $($arg:ident: $type:ty),* })? => $visit:ident ($($ann:tt)*))*) => {
        OperatorCost { $($op: cost_of!($op),)* variable: VARIABLE }
    };
}

/// The table of profile `F48`.
pub(crate) fn table() -> OperatorCost {
    wasmparser::for_each_operator!(table)
}

/// A page is 64 KiB to be cleared: as much as fits.
const VARIABLE: VariableOperatorCost = VariableOperatorCost {
    memory_copy_per_byte: 1,
    memory_fill_per_byte: 1,
    memory_init_per_byte: 1,
    memory_grow_per_page: 255,
    table_copy_per_element: 1,
    table_fill_per_element: 1,
    table_init_per_element: 1,
    table_grow_per_element: 1,
    // There are no arrays: GC is off.
    array_copy_per_element: 1,
    array_fill_per_element: 1,
    array_new_data_per_element: 1,
    array_init_data_per_element: 1,
    array_new_elem_per_element: 1,
    array_init_elem_per_element: 1,
    array_new_default_per_element: 1,
    array_new_per_element: 1,
};
