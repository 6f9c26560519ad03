//! What guests are given in tests: a tree and a store in maps, and values to call the hooks with.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use plugin::{Guests, Runtime, THREAD_STACK_BYTES, Tuning};
use proto::{Acl, Id, Stat};
use state::hooks::{
    Call, Cause, Changed, Check, Credentials, Env, EnvError, FaultKind, Node, Operation, Ownership,
    Pairs, PluginFault, Scope,
};
use state::plugins::{CallLimits, Plugin};

/// Runs a test on a thread that guests may be called on.
pub(crate) fn on_big_stack(test: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(THREAD_STACK_BYTES);
        let thread = thread.spawn_scoped(scope, test).expect("there is room for a stack");
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// A tree and a store.
#[derive(Default)]
pub(crate) struct Maps {
    pub(crate) tree: BTreeMap<String, Bytes>,
    pub(crate) store: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) lines: Vec<String>,
    pub(crate) fuel: Option<u64>,
}

impl Env for Maps {
    fn node(&mut self, path: &str) -> Result<Option<Node>, EnvError> {
        if path == "/host-fault" {
            return Err(state::Fault::Store("gone".into()).into());
        }
        if path == "/not-granted" {
            return Err(EnvError::Plugin(PluginFault::new(FaultKind::NotGranted, path)));
        }
        let node = |data: &Bytes| Node {
            data: Some(data.clone()),
            stat: Stat { data_length: data.len() as i32, ..Stat::default() },
        };
        Ok(self.tree.get(path).map(node))
    }

    fn stat(&mut self, path: &str) -> Result<Option<Stat>, EnvError> {
        Ok(self.node(path)?.map(|node| node.stat))
    }

    fn children(
        &mut self,
        _: &str,
        after: &str,
        most: usize,
    ) -> Result<Option<Vec<String>>, EnvError> {
        let names = self.tree.keys().filter(|name| name.as_str() > after);
        Ok(Some(names.take(most).cloned().collect()))
    }

    fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, EnvError> {
        Ok(self.store.get(key).cloned())
    }

    fn put(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), EnvError> {
        match value {
            Some(value) => self.store.insert(key.to_vec(), value.to_vec()),
            None => self.store.remove(key),
        };
        Ok(())
    }

    fn add(&mut self, key: &[u8], delta: i64) -> Result<i64, EnvError> {
        let before = self
            .store
            .get(key)
            .map_or(0, |value| i64::from_le_bytes(value.as_slice().try_into().expect("a counter")));
        self.store.insert(key.to_vec(), (before + delta).to_le_bytes().to_vec());
        Ok(before + delta)
    }

    fn scan(&mut self, start: &[u8], _: &[u8], most: usize) -> Result<Pairs, EnvError> {
        let pairs = self.store.range(start.to_vec()..).take(most);
        Ok(pairs.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn log(&mut self, line: &str) {
        self.lines.push(line.to_owned());
    }

    fn spent(&mut self, fuel: u64) {
        self.fuel = Some(fuel);
    }
}

/// Guests of a module, and the plugin that is bound to it.
pub(crate) fn loaded(module: &[u8], tuning: Tuning) -> (Guests, Plugin) {
    let runtime = Arc::new(Runtime::new(None, tuning).expect("there is an engine"));
    let plugin = bound(&runtime, module, r#"{"name": "tested", "settings": {"max": 7}}"#);
    (Guests::new(runtime), plugin)
}

/// A binding of a module.
pub(crate) fn bound(runtime: &Runtime, module: &[u8], binding: &str) -> Plugin {
    let loaded = runtime.load(module, 4 << 20).expect("this server can load it");
    let (hash, exports) = loaded.expect("it is not refused");
    Plugin {
        id: 1,
        generation: 1,
        module: hash,
        binding: Arc::new(serde_json::from_str(binding).expect("the binding is valid")),
        exports,
        limits: CallLimits::default(),
    }
}

/// A call in apply.
pub(crate) fn in_apply(plugin: &Plugin, index: u64, transaction: u32) -> Call<'_> {
    let scope = Scope::Apply { index, transaction };
    Call { scope, ..on_read(plugin) }
}

/// A call on a read.
pub(crate) fn on_read(plugin: &Plugin) -> Call<'_> {
    Call {
        plugin,
        scope: Scope::Read,
        zxid: 9,
        time_ms: 1_000,
        session: 5,
        seed: 77,
        fuel_max: 1_000_000,
    }
}

/// A create with 100 bytes of data.
pub(crate) fn create<'a>(path: &'a str, acl: &'a [Acl], identities: &'a [Id]) -> Operation<'a> {
    Operation {
        operation: 1,
        path,
        data: Some(&[b'x'; 100]),
        acl,
        owner: Ownership::Persistent,
        version: -1,
        before: None,
        identities,
        index: 0,
        of_multi: 1,
    }
}

/// The change that follows.
pub(crate) fn created<'a>(path: &'a str, after: &'a Stat) -> Changed<'a> {
    Changed {
        operation: 1,
        cause: Cause::Client,
        path,
        data: Some(b"new"),
        owner: Ownership::Ttl(500),
        before: None,
        after: Some(after),
        identities: &[],
    }
}

/// A question whether something may be read.
pub(crate) fn read<'a>(entry: Option<&'a Id>, identities: &'a [Id]) -> Check<'a> {
    Check { operation: 4, path: "/a", consulted: "/a", permission: 1, entry, identities }
}

/// What a client proves itself with.
pub(crate) fn token(bytes: &[u8]) -> Credentials<'_> {
    Credentials { scheme: "token", bytes, identities: &[] }
}
