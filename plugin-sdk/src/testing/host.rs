//! The mock host: a tree, a store, and who asks.

use std::cell::{Ref, RefCell, RefMut};
use std::collections::BTreeMap;
use std::rc::Rc;

use serde_json::Value;

use super::current;
use crate::{
    Authorizer, Change, Circumstances, Credentials, Decision, Denial, Guard, Identity, Observer,
    Operation, Plugin, Question, Stat, cause, export, mode, op, parent,
};

/// What is asked after, and changed by, a plugin under test. Clones are the same host.
#[derive(Debug, Clone)]
pub struct Host(Rc<RefCell<Inner>>);

#[derive(Debug)]
struct Inner {
    settings: Value,
    state: State,
    /// What else may be read: patterns, `*` for a name and `**` at the end for all below.
    grants: Vec<String>,
    /// What the call is about; nothing is granted for it outside of a call.
    about: Option<String>,
    time_ms: i64,
    session: i64,
    identities: Vec<Identity>,
    lines: Vec<String>,
    /// Whether the store may be written, and anything be read.
    access: Access,
}

/// What a transaction changes.
#[derive(Debug, Clone, Default)]
struct State {
    zxid: i64,
    nodes: BTreeMap<String, Znode>,
    store: BTreeMap<Vec<u8>, Vec<u8>>,
}

#[derive(Debug, Clone)]
struct Znode {
    data: Option<Vec<u8>>,
    mode: u16,
    ttl_ms: i64,
    stat: Stat,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Access {
    None,
    Read,
    Write,
}

impl Host {
    /// A host with a root znode, an empty store, and these settings; see [`super::json!`].
    ///
    /// # Panics
    /// If they are no object.
    pub fn new(settings: Value) -> Self {
        assert!(settings.is_object(), "settings are a table, and not {settings}");
        let root = Znode { data: None, mode: mode::PERSISTENT, ttl_ms: 0, stat: Stat::default() };
        let state = State { nodes: [("/".into(), root)].into(), ..State::default() };
        Self(Rc::new(RefCell::new(Inner {
            settings,
            state,
            grants: Vec::new(),
            about: None,
            time_ms: 1_700_000_000_000,
            session: 1,
            identities: vec![Identity { scheme: "ip".into(), id: "127.0.0.1".into() }],
            lines: Vec::new(),
            access: Access::Write,
        })))
    }

    /// Puts a znode there, and its parents, without asking or telling anybody.
    pub fn node(&self, path: &str, data: impl AsRef<[u8]>) {
        if let Some(parent) = parent(path).filter(|parent| !self.exists(parent)) {
            self.node(parent, "");
        }
        self.inner_mut().change(&super::ops::create(path, data), cause::CLIENT);
    }

    /// As the binding's `reads`.
    pub fn reads(&self, patterns: &[&str]) {
        self.inner_mut().grants = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
    }

    /// Changes the settings, as the next transaction sees them.
    pub fn set_settings(&self, settings: Value) {
        self.inner_mut().settings = settings;
    }

    /// Sets the time of transactions from now on, in milliseconds since the epoch.
    pub fn set_time_ms(&self, time_ms: i64) {
        self.inner_mut().time_ms = time_ms;
    }

    /// Lets time pass.
    pub fn advance_ms(&self, by_ms: i64) {
        self.inner_mut().time_ms += by_ms;
    }

    /// Says which session asks from now on.
    pub fn set_session(&self, session: i64) {
        self.inner_mut().session = session;
    }

    /// Says who asks from now on, beside the address.
    pub fn set_identities(&self, identities: &[(&str, &str)]) {
        let ip = ("ip", "127.0.0.1");
        self.inner_mut().identities = [ip]
            .iter()
            .chain(identities)
            .map(|(scheme, id)| Identity { scheme: (*scheme).into(), id: (*id).into() })
            .collect();
    }

    /// Whether there is such a znode.
    pub fn exists(&self, path: &str) -> bool {
        self.inner().state.nodes.contains_key(path)
    }

    /// A value of the plugin's store.
    pub fn stored(&self, key: impl AsRef<[u8]>) -> Option<Vec<u8>> {
        self.inner().state.store.get(key.as_ref()).cloned()
    }

    /// The whole store, with counters as numbers: to compare with a recount.
    pub fn counters(&self) -> BTreeMap<String, i64> {
        let text = |key: &[u8]| String::from_utf8_lossy(key).into_owned();
        let counter = |value: &[u8]| value.try_into().ok().map(i64::from_le_bytes);
        let inner = self.inner();
        inner
            .state
            .store
            .iter()
            .filter_map(|(key, value)| Some((text(key), counter(value)?)))
            .collect()
    }

    /// What the plugin has logged.
    pub fn lines(&self) -> Vec<String> {
        self.inner().lines.clone()
    }

    /// Whether a plugin takes the settings.
    ///
    /// # Errors
    /// What it says to them.
    pub fn configure<P: Plugin>(&self) -> Result<(), String> {
        self.with_access(Access::None, None, || {
            export::configured::<P>(&crate::context::settings()).map(drop)
        })
    }

    /// Calls a new instance of the plugin, which may read what a call about this path may.
    ///
    /// # Panics
    /// If it does not take the settings.
    pub fn call<P: Plugin, T>(&self, about: &str, call: impl FnOnce(&P) -> T) -> T {
        let plugin = self.instance();
        self.with_access(Access::Write, Some(about), || call(&plugin))
    }

    /// Asks an authorizer what credentials are worth.
    ///
    /// # Errors
    /// What it says to them.
    pub fn authenticate<P: Authorizer>(
        &self,
        scheme: &str,
        data: &[u8],
    ) -> Result<Vec<String>, String> {
        let plugin: P = self.instance();
        let identities = self.identities();
        let credentials = Credentials {
            scheme: scheme.into(),
            data: data.to_vec(),
            identities,
            ..Default::default()
        };
        self.with_access(Access::Read, None, || plugin.authenticate(&credentials))
    }

    /// Asks an authorizer whether those who are set here may do something; `entry` is the id of an ACL entry in
    /// this scheme.
    pub fn check<P: Authorizer>(
        &self,
        op: u16,
        perm: u32,
        path: &str,
        entry: Option<(&str, &str)>,
    ) -> Decision {
        let plugin: P = self.instance();
        let is_parents = op == op::CREATE || op == op::DELETE;
        let consulted = parent(path).filter(|_| is_parents).unwrap_or(path);
        let question = Question {
            op,
            perm,
            path: path.into(),
            consulted: consulted.into(),
            entry: entry.map(|(scheme, id)| Identity { scheme: scheme.into(), id: id.into() }),
            identities: self.identities(),
            ..Question::default()
        };
        self.with_access(Access::Read, Some(path), || Authorizer::check(&plugin, &question))
    }

    /// Does operations as one transaction, a multi if there are several, with a guard.
    ///
    /// # Errors
    /// The denial. Nothing was changed.
    ///
    /// # Panics
    /// If an operation is one that ZooKeeper refuses: no such znode, no parent, there already, has children.
    pub fn guard<P: Guard>(&self, operations: &[Operation]) -> Result<(), Denial> {
        self.transaction(
            operations,
            |plugin: &P, operation, circumstances| plugin.judge(operation, circumstances),
            |_, _| {},
        )
    }

    /// The same with a plugin that is an observer as well.
    ///
    /// # Errors
    /// The denial. Nothing was changed.
    ///
    /// # Panics
    /// As [`Self::guard`].
    pub fn guard_and_observe<P: Guard + Observer>(
        &self,
        operations: &[Operation],
    ) -> Result<(), Denial> {
        self.transaction(
            operations,
            |plugin: &P, operation, circumstances| plugin.judge(operation, circumstances),
            P::observe,
        )
    }

    /// Ends a session: deletes its ephemeral znodes, and tells the observer.
    pub fn end_session<P: Observer>(&self, session: i64) {
        let is_its = |(_, node): &(&String, &Znode)| node.stat.ephemeral_owner == session;
        let paths: Vec<_> =
            self.inner().state.nodes.iter().filter(is_its).map(|(path, _)| path.clone()).collect();
        self.delete_by_server::<P>(&paths, cause::SESSION_END);
    }

    /// Lets a TTL znode or an empty container come to its end, and tells the observer.
    pub fn let_end<P: Observer>(&self, path: &str) {
        self.delete_by_server::<P>(&[path.to_owned()], cause::DUE);
    }

    /// Builds the observer: empties the store, and tells of each znode that is there and that `matches`.
    pub fn build<P: Observer>(&self, matches: impl Fn(&str) -> bool) {
        self.inner_mut().state.store.clear();
        let there: Vec<_> = {
            let inner = self.inner();
            let nodes = inner.state.nodes.iter().filter(|(path, _)| matches(path));
            nodes.map(|(path, node)| node.change(op::CREATE, cause::BUILD, path, None)).collect()
        };
        for change in there {
            self.call(&change.path, |plugin: &P| plugin.observe(&change));
        }
    }

    fn delete_by_server<P: Observer>(&self, paths: &[String], cause: u16) {
        self.inner_mut().state.zxid += 1;
        let asks = std::mem::take(&mut self.inner_mut().identities);
        let session = std::mem::take(&mut self.inner_mut().session);
        let plugin: P = self.instance();
        for path in paths {
            let change = self.inner_mut().change(&super::ops::delete(path), cause);
            self.with_access(Access::Write, Some(path), || plugin.observe(&change));
        }
        self.inner_mut().identities = asks;
        self.inner_mut().session = session;
    }

    fn transaction<P: Plugin>(
        &self,
        operations: &[Operation],
        judge: impl Fn(&P, &Operation, &Circumstances) -> Result<(), Denial>,
        observe: impl Fn(&P, &Change),
    ) -> Result<(), Denial> {
        let before = self.inner().state.clone();
        self.inner_mut().state.zxid += 1;
        let plugin: P = self.instance();
        for (index, operation) in operations.iter().enumerate() {
            self.inner().expect_possible(operation);
            let circumstances = Circumstances {
                cause: cause::CLIENT,
                index: index as u32,
                operations: operations.len() as u32,
                before: self.inner().state.nodes.get(&operation.path).map(|node| node.stat),
                ..Circumstances::default()
            };
            let path = Some(operation.path.as_str());
            let verdict =
                self.with_access(Access::Write, path, || judge(&plugin, operation, &circumstances));
            if let Err(denial) = verdict {
                self.inner_mut().state = before;
                return Err(denial);
            }
            let change = self.inner_mut().change(operation, cause::CLIENT);
            self.with_access(Access::Write, path, || observe(&plugin, &change));
        }
        Ok(())
    }

    /// A new instance.
    fn instance<P: Plugin>(&self) -> P {
        let settings = self.settings_json();
        let made = self.with_access(Access::None, None, || export::configured(&settings));
        made.unwrap_or_else(|why| panic!("settings: {why}"))
    }

    fn with_access<T>(&self, access: Access, about: Option<&str>, call: impl FnOnce() -> T) -> T {
        let old = std::mem::replace(&mut self.inner_mut().access, access);
        self.inner_mut().about = about.map(str::to_owned);
        let result = current::with(self, call);
        self.inner_mut().access = old;
        self.inner_mut().about = None;
        result
    }

    fn inner(&self) -> Ref<'_, Inner> {
        self.0.borrow()
    }

    fn inner_mut(&self) -> RefMut<'_, Inner> {
        self.0.borrow_mut()
    }
}

/// What the calls of [`super::current`] come to.
impl Host {
    pub(super) fn read(&self, path: &str) -> Option<(Option<Vec<u8>>, Stat)> {
        self.inner().expect_granted(path);
        self.inner().state.nodes.get(path).map(|node| (node.data.clone(), node.stat))
    }

    pub(super) fn read_children(
        &self,
        path: &str,
        after: &str,
        most: usize,
    ) -> Option<Vec<String>> {
        let inner = self.inner();
        inner.expect_granted(path);
        inner.state.nodes.get(path)?;
        let names = inner.state.nodes.keys().filter(|child| parent(child) == Some(path));
        let names = names.filter_map(|child| child.rsplit('/').next()).filter(|name| *name > after);
        let mut names: Vec<_> = names.map(str::to_owned).collect();
        names.sort_unstable();
        names.truncate(most);
        Some(names)
    }

    pub(super) fn write(&self, key: &[u8], value: Option<&[u8]>) {
        let mut inner = self.inner_mut();
        assert!(inner.access == Access::Write, "an authorizer may not write to its store");
        assert!((1..=1024).contains(&key.len()), "a key has 1 to 1,024 bytes, not {}", key.len());
        match value {
            Some(value) => {
                assert!(
                    value.len() <= 64 * 1024,
                    "a value has at most 64 KiB, not {}",
                    value.len()
                );
                inner.state.store.insert(key.to_vec(), value.to_vec());
            }
            None => {
                inner.state.store.remove(key);
            }
        }
    }

    pub(super) fn scan(&self, start: &[u8], end: &[u8], most: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
        let inner = self.inner();
        let from = inner.state.store.range(start.to_vec()..);
        let within = from.take_while(|(key, _)| end.is_empty() || key.as_slice() < end);
        within.take(most).map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    pub(super) fn settings_json(&self) -> Vec<u8> {
        self.inner().settings.to_string().into_bytes()
    }

    pub(super) fn time_ms(&self) -> i64 {
        self.inner().time_ms
    }

    pub(super) fn zxid(&self) -> i64 {
        self.inner().state.zxid
    }

    pub(super) fn session(&self) -> i64 {
        self.inner().session
    }

    pub(super) fn identities(&self) -> Vec<Identity> {
        self.inner().identities.clone()
    }

    pub(super) fn log(&self, text: &str) {
        self.inner_mut().lines.push(text.to_owned());
    }
}

impl Inner {
    /// Makes a change that is possible.
    fn change(&mut self, operation: &Operation, cause: u16) -> Change {
        let path = operation.path.as_str();
        let (zxid, time_ms) = (self.state.zxid, self.time_ms);
        let old = self.state.nodes.get(path).cloned();
        let before = old.as_ref().map(|node| node.stat);
        let is_ephemeral = operation.mode == mode::EPHEMERAL;
        let mut node = old.unwrap_or(Znode {
            data: None,
            mode: operation.mode,
            ttl_ms: operation.ttl_ms,
            stat: Stat {
                czxid: zxid,
                mzxid: zxid,
                pzxid: zxid,
                ctime: time_ms,
                mtime: time_ms,
                ephemeral_owner: if is_ephemeral { self.session } else { 0 },
                ..Stat::default()
            },
        });
        match operation.op {
            op::CREATE | op::SET_DATA => {
                node.data = operation.data.clone();
                node.stat.data_length = node.data.as_ref().map_or(0, Vec::len) as u32;
                if operation.op == op::SET_DATA {
                    node.stat.version += 1;
                    (node.stat.mzxid, node.stat.mtime) = (zxid, time_ms);
                }
            }
            op::SET_ACL => node.stat.aversion += 1,
            _ => {}
        }
        let mut change = node.change(operation.op, cause, path, before);
        let is_delete = operation.op == op::DELETE;
        if is_delete {
            (change.after, change.data) = (None, None);
            self.state.nodes.remove(path);
        } else {
            self.state.nodes.insert(path.to_owned(), node);
        }
        if operation.op != op::SET_DATA
            && operation.op != op::SET_ACL
            && let Some(parent) = parent(path).and_then(|parent| self.state.nodes.get_mut(parent))
        {
            parent.stat.pzxid = zxid;
            parent.stat.cversion += 1;
            parent.stat.num_children =
                if is_delete { parent.stat.num_children - 1 } else { parent.stat.num_children + 1 };
        }
        change
    }

    /// Whether ZooKeeper's own checks pass.
    fn expect_possible(&self, operation: &Operation) {
        let path = operation.path.as_str();
        let node = self.state.nodes.get(path);
        if operation.op == op::CREATE {
            let parent = parent(path).expect("the root is there");
            assert!(self.state.nodes.contains_key(parent), "create {path}: there is no {parent}");
            assert!(node.is_none(), "create {path}: it is there already");
        } else {
            let node = node.unwrap_or_else(|| panic!("{path}: there is no such znode"));
            let is_empty = node.stat.num_children == 0;
            assert!(operation.op != op::DELETE || is_empty, "delete {path}: it has children");
        }
    }

    fn expect_granted(&self, path: &str) {
        assert!(self.access != Access::None, "nothing may be read while the settings are checked");
        let about = self.about.as_deref();
        let is_granted = about == Some(path)
            || about.and_then(parent) == Some(path)
            || self.grants.iter().any(|pattern| matches(pattern, path));
        assert!(
            is_granted,
            "{path} may not be read: it is not among the `reads` {:?}",
            self.grants
        );
    }
}

impl Znode {
    fn change(&self, op: u16, cause: u16, path: &str, before: Option<Stat>) -> Change {
        Change {
            op,
            cause,
            path: path.into(),
            mode: self.mode,
            ttl_ms: self.ttl_ms,
            data: if op == op::SET_ACL { None } else { self.data.clone() },
            before,
            after: Some(self.stat),
            ..Change::default()
        }
    }
}

/// `*` is a name, `**` at the end is all that is below.
fn matches(pattern: &str, path: &str) -> bool {
    let mut names = path.split('/');
    for part in pattern.split('/') {
        if part == "**" {
            return names.next().is_some();
        }
        match names.next() {
            Some(name) if part == "*" || part == name => {}
            _ => return false,
        }
    }
    names.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns() {
        assert!(matches("/a/*/limits", "/a/b/limits"));
        assert!(!matches("/a/*/limits", "/a/b/c/limits"));
        assert!(matches("/a/**", "/a/b/c") && !matches("/a/**", "/a"));
    }
}
