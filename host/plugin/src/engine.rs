//! The engine, set up as execution profile `F48` says, and the limits that are part of it.
//!
//! Invariants:
//! * Nothing that a guest can see differs between servers: no clock, no randomness, no float that is not
//!   canonical, no growth of memory that one server has room for and another has not.
//! * Fuel is the only measure of work. It is set after instantiation, whose cost depends on how memories are
//!   filled, and is never looked at after a fault.
//! * The native stack, whose frames no two engines lay out alike, never ends before the fuel does.
//!   A call costs [`CALL`], so that [`FUEL_PER_CALL_MAX`] allows [`DEPTH_MAX`] of them; no function has a
//!   frame above [`FRAME_BYTES_MAX`] (`inspect.rs`); and all of these together are a quarter of
//!   [`WASM_STACK_BYTES`], because the compiler may spill more than the module shows.

use wasmparser::WasmFeatures;
use wasmtime::{
    Config, Engine, Inlining, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig,
    Strategy, WasmBacktraceDetails,
};

use crate::cost::{self, CALL};

/// The name of the profile: what replicas must agree on before they run anything.
pub const PROFILE: &str = "F48";

/// Of this engine. A test holds it against `Cargo.lock`.
pub(crate) const ENGINE_VERSION: &str = "48.0.8";

/// The stack that a guest may use.
pub const WASM_STACK_BYTES: usize = 256 << 20;

/// What a thread that calls guests must have (reserved, not touched). Calls on one that has less left than a
/// guest may use are a host fault.
pub const THREAD_STACK_BYTES: usize = 320 << 20;

/// What is left for the host's own functions below a guest.
pub(crate) const HOST_STACK_BYTES: usize = 8 << 20;

/// The largest frame of a function: 16 bytes for each parameter, local and operand.
pub const FRAME_BYTES_MAX: usize = 8 << 10;

/// How deep calls can go.
pub const DEPTH_MAX: u64 = (WASM_STACK_BYTES / 4 / FRAME_BYTES_MAX) as u64;

/// The most fuel that any limit may give a call. `state` refuses limits that are higher.
pub const FUEL_PER_CALL_MAX: u64 = DEPTH_MAX * CALL as u64;

/// The same for `authenticate`. It may have all of the stack, since it is not called in apply and what it comes
/// to is this server's alone.
pub const AUTHENTICATE_FUEL_MAX: u64 = 4 * FUEL_PER_CALL_MAX;

/// The most linear memory that any limit may give an instance. `state` refuses limits that are higher.
pub const MEMORY_BYTES_MAX: u64 = 64 << 20;

/// Elements of a table.
pub(crate) const TABLE_ELEMENTS_MAX: usize = 10_000;

/// Tables of a component: its own, and those of the shims that componentizing adds.
pub(crate) const TABLES_MAX: usize = 8;

/// Core instances of a component.
pub(crate) const CORE_INSTANCES_MAX: usize = 16;

/// Functions of a core module.
pub(crate) const FUNCTIONS_MAX: u32 = 50_000;

/// Globals of a core module.
pub(crate) const GLOBALS_MAX: u32 = 10_000;

/// The code of one function, in bytes: what makes compiling slow.
pub(crate) const FUNCTION_BYTES_MAX: usize = 512 << 10;

/// Bytes that one value takes when it goes from guest to host.
pub(crate) const LIFTED_BYTES_MAX: usize = 1 << 20;

/// Handles of an instance. Our interfaces have none.
pub(crate) const HANDLES_MAX: usize = 64;

/// Instances that there can be at a time: of the transaction under way, one for each of 256 bindings; as many
/// that are kept for reads (`instances.rs`); and those of reads that run.
const INSTANCES: u32 = 1024;

/// What is cleared by hand when an instance goes, rather than given back to the kernel: a small guest's whole
/// memory.
const KEEP_RESIDENT_BYTES: usize = 256 << 10;

/// WebAssembly 2.0 without SIMD, and components, without what is asynchronous.
pub(crate) const FEATURES: WasmFeatures = WasmFeatures::MUTABLE_GLOBAL
    .union(WasmFeatures::SATURATING_FLOAT_TO_INT)
    .union(WasmFeatures::SIGN_EXTENSION)
    .union(WasmFeatures::REFERENCE_TYPES)
    .union(WasmFeatures::MULTI_VALUE)
    .union(WasmFeatures::BULK_MEMORY)
    .union(WasmFeatures::FLOATS)
    .union(WasmFeatures::EXTENDED_CONST)
    .union(WasmFeatures::COMPONENT_MODEL);

/// What makes an engine faster or slower, and must not change any outcome. Tests run all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuning {
    /// Whether code is optimised.
    pub optimised: bool,
    /// Whether instances come from a pool.
    pub pooled: bool,
    /// Whether memories start as copy-on-write mappings.
    pub copy_on_write: bool,
}

impl Default for Tuning {
    fn default() -> Self {
        Self { optimised: true, pooled: true, copy_on_write: true }
    }
}

/// An engine of this profile.
pub(crate) fn engine(tuning: Tuning) -> wasmtime::Result<Engine> {
    let mut config = Config::new();
    config
        .wasm_features(WasmFeatures::all(), false)
        .wasm_features(FEATURES, true)
        .concurrency_support(false)
        .shared_memory(false)
        .strategy(Strategy::Cranelift)
        .cranelift_opt_level(if tuning.optimised { OptLevel::Speed } else { OptLevel::None })
        .cranelift_nan_canonicalization(true)
        .compiler_inlining(Inlining::No)
        .consume_fuel(true)
        .operator_cost(cost::table())
        .epoch_interruption(false)
        .max_wasm_stack(WASM_STACK_BYTES)
        // There are no such stacks, but the engine compares the two.
        .async_stack_size(WASM_STACK_BYTES)
        .memory_may_move(false)
        .memory_init_cow(tuning.copy_on_write)
        .signals_based_traps(true)
        .wasm_backtrace_max_frames(None)
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        .generate_address_map(false)
        .native_unwind_info(false);
    if tuning.pooled {
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool()));
    }
    Engine::new(&config)
}

fn pool() -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(INSTANCES)
        .total_core_instances(INSTANCES * 4)
        .total_memories(INSTANCES)
        .total_tables(INSTANCES * 2)
        .max_core_instances_per_component(CORE_INSTANCES_MAX as u32)
        .max_memories_per_component(1)
        .max_tables_per_component(TABLES_MAX as u32)
        .max_tables_per_module(TABLES_MAX as u32)
        .max_component_instance_size(64 << 20)
        .max_core_instance_size(16 << 20)
        .max_memory_size(MEMORY_BYTES_MAX as usize)
        .table_elements(TABLE_ELEMENTS_MAX)
        .linear_memory_keep_resident(KEEP_RESIDENT_BYTES)
        .table_keep_resident(TABLE_ELEMENTS_MAX * size_of::<usize>());
    pool
}
