//! Damage on purpose: it is found, and healed from the other servers.

use std::path::{Path, PathBuf};
use std::time::Instant;

use state::keys::{self, Keyspace};
use state::store::Batch;
use state::{FjallStore, Store, StoreOptions};

use crate::client::create;
use crate::ensemble::{Ensemble, PATIENCE, SERVERS, done, read, set};

/// Where a znode's row has its version: behind the row's own, and five numbers of 8 bytes.
const VERSION_AT: usize = 1 + 5 * 8;

/// The store of a server that does not run.
fn store(dir: &Path) -> FjallStore {
    FjallStore::open(&dir.join("state"), &StoreOptions::default()).expect("it opens")
}

/// Changes a znode in the store of a server that does not run, as no entry would.
fn change(dir: &Path, path: &str) {
    let (store, key) = (store(dir), keys::node(path));
    let row = store.view().get(Keyspace::Nodes, &key).expect("it reads").expect("it is there");
    let mut row = row.to_vec();
    row[VERSION_AT + 3] ^= 4;
    let put = &mut |batch: &mut dyn Batch| batch.put(Keyspace::Nodes, &key, Some(&row));
    store.commit(put).expect("it is written");
    store.sync().expect("it is durable");
}

/// The directory of a damaged state that was kept, once there is one.
fn evidence(dir: &Path) -> PathBuf {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = std::fs::read_dir(dir.join("damaged")).into_iter().flatten().flatten();
        let mut found =
            found.map(|entry| entry.path()).filter(|path| path.join("why.txt").exists());
        if let Some(kept) = found.next() {
            return kept;
        }
        assert!(Instant::now() < deadline, "no damaged state was kept");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

/// Has a server lead: the leader hands over to the one that has all of its log.
fn lead(ensemble: &mut Ensemble, at: usize) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let leader = ensemble.leader();
        if leader == at {
            return;
        }
        let third = SERVERS - leader - at;
        let behind = ensemble.servers[third].as_ref().expect("it runs");
        behind.signal("STOP");
        done(&mut ensemble.connect(leader), &set("/n1", "w"));
        let stopped = ensemble.servers[leader].take().expect("it runs");
        stopped.terminate();
        ensemble.servers[third].as_ref().expect("it runs").signal("CONT");
        ensemble.start_one(leader);
        assert!(Instant::now() < deadline, "server {at} does not lead");
    }
}

#[test]
fn a_state_that_went_bad_is_found_and_replaced_whoever_has_it() {
    for leads in [false, true] {
        let mut ensemble = Ensemble::start();
        let leader = ensemble.leader();
        let bad = if leads { leader } else { (leader + 1) % SERVERS };
        let good = (leader + 2) % SERVERS;
        let mut client = ensemble.connect(good);
        (0..50).for_each(|n| drop(done(&mut client, &create(&format!("/n{n}"), b"x"))));
        drop(client);
        // So that all of it is in the store.
        ensemble.servers[bad].take().expect("it runs").terminate();
        change(&ensemble.data(bad), "/n7");
        ensemble.start_one(bad);
        ensemble.leader();
        if leads {
            lead(&mut ensemble, bad);
        }
        let mut client = ensemble.connect(good);
        done(&mut client, &set("/n7", "y"));
        // An entry of the next second shows it.
        let deadline = Instant::now() + PATIENCE;
        let kept = loop {
            std::thread::sleep(std::time::Duration::from_millis(300));
            done(&mut client, &set("/n8", "z"));
            if ensemble.data(bad).join("damaged").exists() {
                break evidence(&ensemble.data(bad));
            }
            assert!(Instant::now() < deadline, "nobody noticed");
        };
        let why = std::fs::read_to_string(kept.join("why.txt")).expect("it says why");
        assert!(why.contains("a majority, had") && why.starts_with("generation 0"), "{why}");
        let store = FjallStore::open(&kept, &StoreOptions::default()).expect("it is whole");
        assert!(store.view().get(Keyspace::Nodes, &keys::node("/n8")).expect("it reads").is_some());
        assert!(!ensemble.data(bad).join("quarantine").exists(), "it is over");
        assert_eq!(read(&mut ensemble.connect(bad), "/n7"), "y");
        let log = std::fs::read_to_string(ensemble.dir.path().join(format!("log{bad}")));
        let log = log.expect("it is there");
        assert!(log.contains("is not what the log makes of it"), "{log}");
        // It is a server like the others, also after another start.
        ensemble.kill(bad);
        done(&mut client, &set("/n7", "last"));
        ensemble.start_one(bad);
        assert_eq!(read(&mut ensemble.connect(bad), "/n7"), "last");
        let counts: Vec<_> = (0..SERVERS).map(|at| ensemble.said(at, "Node count:")).collect();
        assert!(counts.windows(2).all(|two| two[0] == two[1]), "{counts:?}");
    }
}
