//! What bindings cost where none of them matches: `cargo bench -p state`.
//!
//! Prints the processor's time of one look-up among 256 bindings, for paths that nothing matches and for one that one
//! binding does, and of one create in memory without bindings and beside 256 that do not match.

#![allow(clippy::print_stdout, reason = "it says what it measured")]

#[path = "../tests/native/mod.rs"]
mod native;

use std::hint::black_box;

use bytes::Bytes;
use state::command::{CreateKind, PluginCommand};
use state::plugins::{Binding, Mode, ModuleHash, OnFault, OpKind};
use state::{Batch, Command, Group, MemoryStore, Op, State};

const BINDINGS: usize = 256;
const LOOKUPS: u32 = 2_000_000;
const CREATES: usize = 200;
const ENTRIES: u64 = 300;

struct Bench {
    state: State,
    sequence: u64,
}

impl Bench {
    fn new() -> Self {
        let (store, hooks) =
            (Box::new(MemoryStore::default()), Box::new(native::Native::default()));
        let state = State::open(store, hooks, 64 << 20).expect("it opens");
        let mut bench = Self { state, sequence: 0 };
        let open = Command::OpenSession { session: 1, password: [0; 16], timeout_ms: 1000 };
        bench.apply(vec![Command::Origin { replaces: 0 }]);
        bench.apply(vec![open]);
        bench
    }

    fn apply(&mut self, commands: Vec<Command>) {
        let first = self.sequence + 1;
        self.sequence += commands.len() as u64;
        let identities = vec![vec![("ip".to_owned(), "127.0.0.1".to_owned())]];
        let group = Group { origin: (1, 1), first, identities, commands };
        let (groups, present) = (vec![group], vec![0]);
        let entry = Batch { time_ms: 1, groups, present, ..Batch::default() }.encode();
        let index = self.state.meta().applied + 1;
        self.state.apply(index, 1, &entry).expect("it applies");
    }

    fn install(&mut self, matches: Vec<String>) {
        let part = Bytes::from_static(b"deny");
        let module = ModuleHash::of(&part);
        let upload = PluginCommand::Upload { module, bytes: part.len() as u64, offset: 0, part };
        self.apply(vec![Command::Plugin(upload)]);
        for (at, pattern) in matches.into_iter().enumerate() {
            let name = format!("b{at}");
            let binding = Binding {
                name: name.clone(),
                module: "deny".to_owned(),
                mode: Mode::Enforce,
                priority: 0,
                matches: vec![pattern],
                ops: vec![OpKind::Create, OpKind::Set, OpKind::Delete],
                reads: Vec::new(),
                schemes: Vec::new(),
                points: Vec::new(),
                on_fault: OnFault::Deny,
                override_acl: false,
                instance: None,
                settings: "{}".to_owned(),
            };
            let (generation, server, wait_all) = (1, 0, false);
            let result = Ok(native::exports("deny"));
            let life = [
                PluginCommand::Stage { binding, module, after: None, if_unseen: false },
                PluginCommand::Report { server, name: name.clone(), generation, result },
                PluginCommand::Activate { name, generation, wait_all },
            ];
            self.apply(life.into_iter().map(Command::Plugin).collect());
        }
    }

    /// Nanoseconds for each create, of znodes below `/` in entries of many.
    fn creates(&mut self) -> f64 {
        let began = cpu_ns();
        for entry in 0..ENTRIES {
            let create = |at| {
                let (kind, path) = (CreateKind::Create, format!("/{entry}-{at}"));
                let acl = vec![(31, "world".to_owned(), "anyone".to_owned())];
                let data = Some(Bytes::from_static(b"some data"));
                let op = Op::Create { kind, path, data, acl, flags: 0, ttl_ms: -1 };
                Command::Write { session: 1, generation: 1, is_local: false, identities: 0, op }
            };
            self.apply((0..CREATES).map(create).collect());
        }
        (cpu_ns() - began) / (ENTRIES as f64 * CREATES as f64)
    }
}

/// How long this thread has had a processor, in nanoseconds: what others take is not counted.
fn cpu_ns() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux has it");
    text.split(' ').next().and_then(|ns| ns.parse().ok()).expect("it is a number")
}

/// Nanoseconds for each look-up.
fn look_up(bench: &Bench, path: &str, kind: OpKind) -> f64 {
    let view = bench.state.view();
    let began = cpu_ns();
    for _ in 0..LOOKUPS {
        black_box(view.plugins.is_matched(black_box(path), black_box(kind)));
    }
    (cpu_ns() - began) / f64::from(LOOKUPS)
}

fn main() {
    let mut with = Bench::new();
    let pattern = |at: usize| match at % 4 {
        0 => format!("/tenants/t{at}/**"),
        1 => format!("/tenants/*/config/{at}"),
        2 => format!("/services/s{at}/*/instances/**"),
        _ => format!("/a/deeper/path/of/{at}/**"),
    };
    with.install((0..BINDINGS).map(pattern).collect());
    for path in [
        "/other/thing",
        "/tenants/unknown/some/znode/that/is/deep",
        "/tenants/t1/config/another",
        "/services/s3/x/instances/1",
        "/a/deeper/path/of/nothing/that/is/bound",
        "/tenants/t4/some/znode",
    ] {
        let kind = OpKind::Create;
        let matched = with.state.view().plugins.is_matched(path, kind);
        println!("{:7.1} ns  {path}, matched: {matched}", look_up(&with, path, kind));
    }
    // In turns, so that whatever else the machine does falls on both.
    let mut pairs: Vec<(f64, f64)> = Vec::new();
    for _ in 0..5 {
        let (mut without, mut with) = (Bench::new(), Bench::new());
        with.install((0..BINDINGS).map(pattern).collect());
        pairs.push((without.creates(), with.creates()));
    }
    for (without, with) in pairs {
        println!("create: {without:6.0} ns without bindings, {with:6.0} ns beside {BINDINGS}");
    }
}
