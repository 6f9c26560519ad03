//! A server whose disk is full stops, and loses nothing; the others go on.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use proto::{Reply, Request};
use tests::real::ensemble::{Ensemble, Program};

use crate::client::{Client, create};
use crate::process::binary;

const SERVERS: usize = 3;
const SIZE: &str = "200m";
const PATIENCE: Duration = Duration::from_secs(60);
/// The exit code of a server that is broken.
const BROKEN: i32 = 70;

/// A small file system, in a mount namespace of its own: no rights are needed where the system gives
/// namespaces to its users.
struct SmallDisk {
    holder: Child,
    dir: PathBuf,
}

impl SmallDisk {
    /// `None` where the system gives none.
    fn mount(dir: &Path) -> Option<Self> {
        std::fs::create_dir(dir).expect("its parent is there");
        let script = "mount -t tmpfs -o size=$1 none \"$0\" && echo mounted && exec sleep 600";
        let mut command = Command::new("unshare");
        command
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
            .arg(dir)
            .arg(SIZE);
        let mut holder = command.stdout(Stdio::piped()).spawn().ok()?;
        let mut said = [0; 7];
        let mounted = std::io::Read::read_exact(holder.stdout.as_mut()?, &mut said);
        let disk = Self { holder, dir: dir.to_owned() };
        mounted.ok().map(|()| disk)
    }

    /// What a command begins with to run where it is mounted, in the directory around it.
    fn within(&self) -> Vec<String> {
        let target = self.holder.id().to_string();
        let around = self.dir.parent().expect("it has one").display().to_string();
        let enter = ["nsenter", "--target", &target, "--user", "--mount", "--preserve-credentials"];
        let go = ["sh", "-c", "cd \"$0\" && exec \"$@\"", &around];
        enter.iter().chain(&go).map(|word| (*word).to_owned()).collect()
    }

    fn run(&self, script: &str) {
        let within = self.within();
        let mut command = Command::new(&within[0]);
        command.args(&within[1..]).args(["sh", "-c", script]).arg(&self.dir);
        command.stderr(Stdio::null()).status().expect("it runs");
    }

    fn fill(&self) {
        self.run("cat /dev/zero > \"$0/ballast\"");
    }

    fn make_room(&self) {
        self.run("rm \"$0/ballast\"");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Both fail where it has ended already.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

fn exit_code(ensemble: &mut Ensemble, at: usize) -> Option<i32> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = ensemble.ended(at).expect("it is our child") {
            return status.code();
        }
        assert!(Instant::now() < deadline, "it goes on");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Creates `/PREFIX-0` and so on, of so many bytes each.
fn write(ensemble: &Ensemble, at: usize, prefix: &str, count: usize, bytes: usize) {
    let mut client = Client::connect(ensemble.clients[at]).expect("it takes clients");
    for number in 0..count {
        let request = create(&format!("/{prefix}-{number}"), &vec![7; bytes]);
        assert_eq!(client.ask(&request).expect("the connection stays").0.err, 0);
    }
}

#[test]
fn it_stops_and_comes_back_when_there_is_room() {
    let mut ensemble =
        Ensemble::lay_out(Program::Vivarium(binary()), SERVERS, false).expect("it can be written");
    let Some(disk) = SmallDisk::mount(&ensemble.home(2).join("data")) else {
        eprintln!("skipped: this system gives its users no mount namespaces");
        return;
    };
    ensemble.within(2, disk.within());
    (0..SERVERS).for_each(|at| ensemble.start(at).expect("it starts"));
    ensemble.wait().expect("all serve");
    write(&ensemble, 2, "before", 50, 1000);
    disk.fill();
    // The others are enough, whoever leads.
    for round in 0.. {
        if ensemble.ended(2).expect("it is our child").is_some() {
            break;
        }
        assert!(round < 100, "it takes what it cannot keep");
        write(&ensemble, round % 2, &format!("full-{round}"), 20, 100_000);
    }
    assert_eq!(exit_code(&mut ensemble, 2), Some(BROKEN));
    let log = ensemble.log(2);
    let last = log.lines().rfind(|line| line.contains("ERROR")).unwrap_or("no error");
    assert!(last.contains("No space left on device"), "{last}");
    // Still full, it does not serve, and does no harm.
    ensemble.start(2).expect("it starts");
    let code = exit_code(&mut ensemble, 2);
    assert!([Some(1), Some(BROKEN)].contains(&code), "{code:?}: {}", ensemble.log_end(2));
    write(&ensemble, 0, "meanwhile", 50, 1000);
    disk.make_room();
    ensemble.start(2).expect("it starts");
    ensemble.wait().expect("all serve");
    let mut client = Client::connect(ensemble.clients[2]).expect("it takes clients");
    client.ask(&Request::Sync { path: "/".to_owned() }).expect("the connection stays");
    for path in
        ["before", "meanwhile"].iter().flat_map(|p| (0..50).map(move |n| format!("/{p}-{n}")))
    {
        let request = Request::GetData { path: path.clone(), watch: false };
        match client.ask(&request).expect("the connection stays").1 {
            Some(Reply::Data(Some(data), _)) => assert_eq!(data, [7; 1000][..]),
            other => panic!("{path}: {other:?}"),
        }
    }
}
