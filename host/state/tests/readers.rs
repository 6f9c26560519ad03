//! Threads that read while entries are applied, and drop their views whenever they like.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use state::apply::BIRTH;
use state::command::CreateKind;
use state::{Batch, Command, Group, MemoryStore, NoHooks, Op, State, View};

const READERS: usize = 2;
const ENTRIES: u64 = 800_000;

fn entry(sequence: u64, command: Command) -> Vec<u8> {
    let identities = vec![vec![("super".to_owned(), String::new())]];
    let group = Group { origin: (1, 1), first: sequence, identities, commands: vec![command] };
    Batch { time_ms: 1_700_000_000_000, groups: vec![group], ..Batch::default() }.encode()
}

fn write(op: Op) -> Command {
    Command::Write { session: 1, generation: 1, is_local: false, identities: 0, op }
}

/// Reads as fast as it can, of a few views at a time; the oldest of them goes first, most often the
/// oldest of all.
fn read(shared: &Mutex<Arc<View>>, done: &AtomicBool, wrong: &AtomicU64) {
    let mut kept: VecDeque<Arc<View>> = VecDeque::new();
    while !done.load(Ordering::Relaxed) {
        let view = Arc::clone(&shared.lock());
        if kept.back().is_none_or(|last| last.index != view.index) {
            kept.push_back(view);
        }
        for view in &kept {
            let node = view.node("/n").expect("memory does not fail");
            let data = node.and_then(|node| view.data("/n", &node).expect("memory does not fail"));
            let expected = view.index.to_string();
            let is_right = data.as_deref() == Some(expected.as_bytes());
            wrong.fetch_add(u64::from(!is_right), Ordering::Relaxed);
        }
        if kept.len() > 2 {
            kept.pop_front();
        }
    }
}

#[test]
fn a_view_shows_its_own_index_whoever_drops_others_meanwhile() {
    let store = Box::new(MemoryStore::default());
    let mut state = State::open(store, Box::new(NoHooks), 64 << 20).expect("it opens");
    let mut index = BIRTH.0;
    let mut apply = |command: Command| {
        index += 1;
        state.apply(index, 1, &entry(index - BIRTH.0, command)).expect("it applies");
        state.view()
    };
    apply(Command::Origin { replaces: 0 });
    apply(Command::OpenSession { session: 1, password: [0; 16], timeout_ms: 1000 });
    let data = Some(Bytes::from((BIRTH.0 + 3).to_string()));
    let acl = vec![(31, "world".to_owned(), "anyone".to_owned())];
    let kind = CreateKind::Create;
    let view =
        apply(write(Op::Create { kind, path: "/n".to_owned(), data, acl, flags: 0, ttl_ms: -1 }));
    let shared = Mutex::new(view);
    let (done, wrong) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..READERS {
            scope.spawn(|| read(&shared, &done, &wrong));
        }
        for index in (BIRTH.0 + 4..).take(ENTRIES as usize) {
            let data = Some(Bytes::from(index.to_string()));
            let view = apply(write(Op::SetData { path: "/n".to_owned(), data, version: -1 }));
            let old = std::mem::replace(&mut *shared.lock(), view);
            drop(old);
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(wrong.load(Ordering::Relaxed), 0, "reads gave what is not of their index");
}
