//! From a type to a component: [`export!`](crate::export!) and what it expands to.

use std::any::Any;
use std::cell::OnceCell;
use std::marker::PhantomData;

use crate::bindings;
use crate::{
    Authorizer, Change, Circumstances, Credentials, Decision, Denial, Edit, Guard, Observer,
    Operation, Plugin, Question, Trigger, View,
};

/// Makes a component of a plugin, with the points it names:
///
/// ```ignore
/// export!(Quota: Guard, Observer);
/// ```
///
/// The component declares itself stateless: its answers do not depend on what earlier calls left in its
/// memory. A plugin that does keep something there says so, gets a new instance for each transaction,
/// and loses it with that:
///
/// ```ignore
/// export!(stateful Quota: Guard, Observer);
/// ```
#[macro_export]
macro_rules! export {
    (stateful $plugin:ty: $($point:ident),+ $(,)?) => {
        #[cfg(target_family = "wasm")]
        const _: () = {
            type Exported = $crate::export::Exported<$plugin>;
            $crate::bindings::configuring::export_setup!(
                Exported with_types_in $crate::bindings::configuring);
            $($crate::__export_point!($point);)+
        };
        // What cannot be exported is to be found without Wasm too.
        #[cfg(not(target_family = "wasm"))]
        const _: () = {
            $($crate::__check_point!($point, $plugin);)+
        };
    };
    ($plugin:ty: $($point:ident),+ $(,)?) => {
        $crate::export!(stateful $plugin: $($point),+);
        #[cfg(target_family = "wasm")]
        const _: () = {
            #[unsafe(link_section = "vivarium:plugin")]
            #[used]
            static STATELESS: [u8; 10] = *b"stateless ";
        };
    };
}

/// Exports one point of `Exported`.
#[doc(hidden)]
#[macro_export]
macro_rules! __export_point {
    (Authorizer) => {
        $crate::bindings::authorizing::export_authorizer!(
            Exported with_types_in $crate::bindings::authorizing);
    };
    (Guard) => {
        $crate::bindings::guarding::export_guard!(
            Exported with_types_in $crate::bindings::guarding);
    };
    (Observer) => {
        $crate::bindings::observing::export_observer!(
            Exported with_types_in $crate::bindings::observing);
    };
    (Trigger) => {
        $crate::bindings::triggering::export_trigger!(
            Exported with_types_in $crate::bindings::triggering);
    };
    (View) => {
        $crate::bindings::viewing::export_view!(
            Exported with_types_in $crate::bindings::viewing);
    };
    ($other:ident) => {
        compile_error!(concat!(
            stringify!($other),
            " is no point: there are Authorizer, Guard, Observer, Trigger and View"
        ));
    };
}

/// Fails to compile unless the plugin has the point.
#[doc(hidden)]
#[macro_export]
macro_rules! __check_point {
    ($point:ident, $plugin:ty) => {
        const _: () = {
            const fn has_point<P: $crate::$point>() {}
            has_point::<$plugin>();
        };
    };
}

/// The plugin as the generated bindings see it.
pub struct Exported<P>(PhantomData<P>);

/// The plugin of these settings, which need not make sense.
fn read<P: Plugin>(settings: &[u8]) -> Result<P, String> {
    serde_json::from_slice(settings).map_err(|error| error.to_string())
}

/// The plugin of these settings, if they make sense.
pub(crate) fn configured<P: Plugin>(settings: &[u8]) -> Result<P, String> {
    let plugin: P = read(settings)?;
    plugin.check()?;
    Ok(plugin)
}

thread_local! {
    /// The plugin of this instance. There is one; its type is known where it is used.
    static PLUGIN: OnceCell<Box<dyn Any>> = const { OnceCell::new() };
}

/// Calls the plugin of this instance, and makes it first if need be.
fn with<P: Plugin, T>(call: impl FnOnce(&P) -> T) -> T {
    PLUGIN.with(|cell| {
        let plugin = cell.get_or_init(|| {
            std::panic::set_hook(Box::new(|panic| crate::log::line(&panic.to_string())));
            // They were checked when the binding was brought in; to do that in each instance costs fuel.
            match read::<P>(&crate::context::settings()) {
                Ok(plugin) => Box::new(plugin),
                Err(why) => panic!("settings: {why}"),
            }
        });
        call(plugin.downcast_ref().expect("a component has one plugin"))
    })
}

impl<P: Plugin> bindings::configuring::exports::vivarium::plugin::setup::Guest for Exported<P> {
    fn configure() -> Result<(), String> {
        configured::<P>(&crate::context::settings()).map(drop)
    }
}

impl<P: Authorizer> bindings::authorizing::exports::vivarium::plugin::authorizer::Guest
    for Exported<P>
{
    fn authenticate(credentials: Credentials) -> Result<Vec<String>, String> {
        with::<P, _>(|plugin| plugin.authenticate(&credentials))
    }

    fn check(question: Question) -> Decision {
        with::<P, _>(|plugin| Authorizer::check(plugin, &question))
    }
}

impl<P: Guard> bindings::guarding::exports::vivarium::plugin::guard::Guest for Exported<P> {
    fn judge(operation: Operation, circumstances: Circumstances) -> Result<(), Denial> {
        with::<P, _>(|plugin| plugin.judge(&operation, &circumstances))
    }
}

impl<P: Observer> bindings::observing::exports::vivarium::plugin::observer::Guest for Exported<P> {
    fn observe(change: Change) {
        with::<P, _>(|plugin| plugin.observe(&change));
    }
}

impl<P: Trigger> bindings::triggering::exports::vivarium::plugin::trigger::Guest for Exported<P> {
    fn fire(change: Change) -> Result<Vec<Operation>, Denial> {
        with::<P, _>(|plugin| plugin.fire(&change))
    }
}

impl<P: View> bindings::viewing::exports::vivarium::plugin::view::Guest for Exported<P> {
    fn update(change: Change) -> Vec<Edit> {
        with::<P, _>(|plugin| plugin.update(&change))
    }
}
