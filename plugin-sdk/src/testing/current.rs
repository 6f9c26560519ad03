//! The host that a plugin's calls reach in this thread.

use std::cell::RefCell;

use super::host::Host;

thread_local! {
    static CURRENT: RefCell<Option<Host>> = const { RefCell::new(None) };
}

/// Runs a call of the plugin with this host; whatever was current before is so again after it.
pub(super) fn with<T>(host: &Host, call: impl FnOnce() -> T) -> T {
    struct Restore(Option<Host>);
    impl Drop for Restore {
        fn drop(&mut self) {
            CURRENT.with_borrow_mut(|current| *current = self.0.take());
        }
    }
    let _restore = Restore(CURRENT.with_borrow_mut(|current| current.replace(host.clone())));
    call()
}

fn host() -> Host {
    CURRENT
        .with_borrow(Option::clone)
        .expect("this plugin is called by a test without a testing::Host; see its `call`")
}

pub(crate) mod tree {
    use crate::{Node, Stat};

    pub(crate) fn get(path: &str) -> Option<Node> {
        super::host().read(path).map(|(data, stat)| Node { data, stat })
    }

    pub(crate) fn exists(path: &str) -> Option<Stat> {
        super::host().read(path).map(|(_, stat)| stat)
    }

    pub(crate) fn children(path: &str, after: &str, most: u32) -> Option<Vec<String>> {
        super::host().read_children(path, after, most.min(1000) as usize)
    }
}

pub(crate) mod store {
    pub(crate) fn get(key: &[u8]) -> Option<Vec<u8>> {
        super::host().stored(key)
    }

    pub(crate) fn put(key: &[u8], value: &[u8]) {
        super::host().write(key, Some(value));
    }

    pub(crate) fn delete(key: &[u8]) {
        super::host().write(key, None);
    }

    pub(crate) fn add(key: &[u8], delta: i64) -> i64 {
        let value = get(key).unwrap_or_else(|| vec![0; 8]);
        let value = i64::from_le_bytes(value.try_into().expect("a counter has 8 bytes"));
        let sum = value.checked_add(delta).expect("the sum fits");
        super::host().write(key, (sum != 0).then_some(&sum.to_le_bytes()));
        sum
    }

    pub(crate) fn scan(start: &[u8], end: &[u8], most: u32) -> Vec<(Vec<u8>, Vec<u8>)> {
        super::host().scan(start, end, most.min(256) as usize)
    }
}

pub(crate) mod context {
    use crate::Identity;

    pub(crate) fn settings() -> Vec<u8> {
        super::host().settings_json()
    }

    pub(crate) fn time_ms() -> i64 {
        super::host().time_ms()
    }

    pub(crate) fn zxid() -> i64 {
        super::host().zxid()
    }

    pub(crate) fn session() -> i64 {
        super::host().session()
    }

    pub(crate) fn identities() -> Vec<Identity> {
        super::host().identities()
    }

    pub(crate) fn seed() -> u64 {
        super::host().zxid() as u64 ^ 0x9e37_79b9_7f4a_7c15
    }
}

pub(crate) mod log {
    pub(crate) fn line(text: &str) {
        super::host().log(text);
    }
}
