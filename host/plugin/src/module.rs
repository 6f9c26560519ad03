//! A compiled module, and a live instance of one.

use std::sync::Arc;

use state::plugins::{CallLimits, Exports, Point};
use wasmtime::component::{Component, Instance, InstancePre, Linker};
use wasmtime::{Engine, Store};

use crate::bindings::exports::vivarium::plugin as points;
use crate::engine::{HANDLES_MAX, LIFTED_BYTES_MAX};
use crate::guest::Guest;
use crate::inspect::SETUP;

/// A compiled module, ready to be instantiated.
pub(crate) struct Module {
    pre: InstancePre<Guest>,
    indices: Indices,
}

impl Module {
    /// Links it.
    ///
    /// # Errors
    /// Its imports are of other types than ours, or its interfaces lack functions.
    pub(crate) fn new(
        linker: &Linker<Guest>,
        component: &Component,
        exports: &Exports,
    ) -> wasmtime::Result<Self> {
        let pre = linker.instantiate_pre(component)?;
        let has = |point: Option<Point>| match point {
            Some(point) => exports.points.contains(&point),
            None => component.get_export_index(None, SETUP).is_some(),
        };
        let indices = Indices::of(&pre, has)?;
        Ok(Self { pre, indices })
    }
}

/// An instance. It holds nothing of any transaction.
pub(crate) struct Live {
    pub(crate) store: Store<Guest>,
    instance: Instance,
    module: Arc<Module>,
    functions: Functions,
}

impl Live {
    /// Makes an instance. No code of the module runs: start functions are refused.
    ///
    /// # Errors
    /// Of phase `Instantiation`; with whether it was refused memory.
    pub(crate) fn new(
        engine: &Engine,
        module: Arc<Module>,
        limits: &CallLimits,
    ) -> Result<Self, (wasmtime::Error, bool)> {
        let mut store = Store::new(engine, Guest::new(limits));
        store.limiter(|guest| guest);
        store.set_hostcall_fuel(LIFTED_BYTES_MAX);
        store.set_max_component_handles(HANDLES_MAX);
        // To fill memory and tables costs fuel, and how much depends on how it is done.
        let made = store.set_fuel(u64::MAX).and_then(|()| module.pre.instantiate(&mut store));
        match made {
            Ok(instance) => Ok(Self { store, instance, module, functions: Functions::default() }),
            Err(error) => Err((error, store.data().refused)),
        }
    }
}

macro_rules! interfaces {
    ($($name:ident $point:expr;)*) => {
        /// Where a module's functions are, found once for all instances.
        struct Indices { $($name: Option<points::$name::GuestIndices>,)* }

        impl Indices {
            fn of(
                pre: &InstancePre<Guest>,
                has: impl Fn(Option<Point>) -> bool,
            ) -> wasmtime::Result<Self> {
                Ok(Self {
                    $($name: has($point).then(|| points::$name::GuestIndices::new(pre)).transpose()?,)*
                })
            }
        }

        /// An instance's functions, found when they are first called.
        #[derive(Default)]
        struct Functions { $($name: Option<points::$name::Guest>,)* }

        impl Live {
            $(
                /// The functions of this interface; none if the module does not export it.
                pub(crate) fn $name(&mut self) -> wasmtime::Result<Option<points::$name::Guest>> {
                    let slot = &mut self.functions.$name;
                    if slot.is_none() && let Some(indices) = &self.module.indices.$name {
                        *slot = Some(indices.load(&mut self.store, &self.instance)?);
                    }
                    Ok(slot.clone())
                }
            )*

            /// Finds all of them, so that later it cannot fail.
            ///
            /// # Errors
            /// One has another type than ours.
            pub(crate) fn find_all(&mut self) -> wasmtime::Result<()> {
                $(self.$name()?;)*
                Ok(())
            }
        }
    };
}

interfaces! {
    authorizer Some(Point::Authorizer);
    guard Some(Point::Guard);
    observer Some(Point::Observer);
    trigger Some(Point::Trigger);
    view Some(Point::View);
    setup None;
}
