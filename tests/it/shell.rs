//! `vivarium shell` against a real server: one-shot, from a pipe, and at a terminal.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use proto::OpCode;

use crate::client::{Client, create};
use crate::process::{Server, binary};
use crate::pty::Terminal;

fn command(server: &Server, args: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(["shell", "--server"]).arg(server.address.to_string()).args(args);
    command
}

fn run(server: &Server, args: &[&str]) -> Output {
    command(server, args).output().expect("it can be started")
}

/// Runs a verb that must succeed.
fn told(server: &Server, args: &[&str]) -> String {
    let output = run(server, args);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {error}");
    String::from_utf8(output.stdout).expect("text")
}

/// Runs a verb that must fail; gives what it says.
fn fails(server: &Server, args: &[&str]) -> String {
    let output = run(server, args);
    assert_eq!(output.status.code(), Some(1), "{args:?} did not fail");
    String::from_utf8(output.stderr).expect("text")
}

/// Runs commands from a pipe: output, and whether all succeeded.
fn piped(server: &Server, lines: &str) -> (String, bool) {
    let mut command = command(server, &[]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(lines.as_bytes()).expect("it takes lines");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    (String::from_utf8(output.stdout).expect("text"), output.status.success())
}

#[test]
fn one_command_at_a_time() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path());
    assert_eq!(told(&server, &["create", "/a", "hello"]), "Created /a\n");
    assert_eq!(told(&server, &["create", "-s", "/a/n-"]), "Created /a/n-0000000000\n");
    assert_eq!(told(&server, &["get", "/a"]), "hello\n");
    assert_eq!(told(&server, &["get", "-b", "/a"]), "aGVsbG8=\n");
    assert_eq!(told(&server, &["get", "-r", "/a"]), "hello");
    assert_eq!(told(&server, &["get", "/a/n-0000000000"]), "null\n");
    assert_eq!(told(&server, &["ls", "/"]), "[a, zookeeper]\n");
    let stat = told(&server, &["stat", "/a"]);
    let names: Vec<_> = stat.lines().filter_map(|line| line.split(" = ").next()).collect();
    let expected = "cZxid ctime mZxid mtime pZxid cversion dataVersion aclVersion ephemeralOwner \
                    dataLength numChildren";
    assert_eq!(names.join(" "), expected);
    assert!(told(&server, &["set", "-s", "-v", "0", "/a", "x"]).contains("dataVersion = 1\n"));
    assert_eq!(fails(&server, &["set", "-v", "0", "/a", "y"]), "version No is not valid : /a\n");
    assert_eq!(told(&server, &["getAcl", "/a"]), "'world,'anyone\n: cdrwa\n");
    assert_eq!(told(&server, &["setAcl", "/a", "world:anyone:r,ip:127.0.0.1:cdrwa"]), "");
    let acl = told(&server, &["getAcl", "/a"]);
    assert_eq!(acl, "'world,'anyone\n: r\n'ip,'127.0.0.1\n: cdrwa\n");
    assert_eq!(told(&server, &["getAllChildrenNumber", "/"]), "5\n");
    assert_eq!(told(&server, &["sync", "/"]), "Sync is OK\n");
    let who = told(&server, &["--auth", "digest:me:secret", "whoami"]);
    assert_eq!(who, "Auth scheme: User\ndigest: me\nip: 127.0.0.1\n");
    assert!(fails(&server, &["delete", "/a"]).starts_with("Node not empty: /a"));
    assert_eq!(fails(&server, &["create", "/a"]), "Node already exists: /a\n");
    assert_eq!(told(&server, &["delete", "/a/n-0000000000"]), "");
    assert_eq!(told(&server, &["delete", "/a"]), "");
    for verb in ["get", "stat", "delete", "ls", "getAcl", "deleteall"] {
        assert_eq!(fails(&server, &[verb, "/a"]), "Node does not exist: /a\n", "{verb}");
    }
    assert!(fails(&server, &["gte", "/a"]).contains("did you mean get?"));
    assert!(fails(&server, &["get"]).contains("usage: get"));
    assert!(fails(&server, &["ls", "a"]).contains("Path must start with /"));
    let version = told(&server, &["version"]);
    assert!(version.starts_with("Vivarium CLI version: "), "{version}");
}

#[test]
fn a_chroot_is_in_front_of_every_path() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path());
    told(&server, &["create", "/app"]);
    let target = format!("{}/app", server.address);
    let chrooted = |args: &[&str]| {
        let output =
            Command::new(binary()).args(["shell", "--server", &target]).args(args).output();
        String::from_utf8(output.expect("it can be started").stdout).expect("text")
    };
    assert_eq!(chrooted(&["create", "-s", "/x-"]), "Created /x-0000000000\n");
    assert_eq!(chrooted(&["ls", "-R", "/"]), "/\n/x-0000000000\n");
    assert_eq!(told(&server, &["ls", "-R", "/app"]), "/app\n/app/x-0000000000\n");
}

#[test]
fn no_server_is_a_clear_error() {
    let address = crate::process::free_address().to_string();
    let output = Command::new(binary()).args(["shell", "--server", &address, "ls", "/"]).output();
    let output = output.expect("it can be started");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("no server answers") && said.contains(&address), "{said}");
}

#[test]
fn whole_trees_are_listed_and_deleted() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path());
    let mut client = Client::connect(server.address).expect("it serves");
    let mut paths = vec!["/tree".to_owned()];
    for i in 0..40 {
        paths.push(format!("/tree/d{i:02}"));
        paths.extend((0..60).map(|j| format!("/tree/d{i:02}/k{j:02}")));
    }
    for path in &paths {
        client.send(&create(path, b"data")).expect("it takes requests");
    }
    for _ in &paths {
        assert_eq!(client.receive(OpCode::Create).expect("an answer").0.err, 0);
    }
    told(&server, &["create", "/treehouse"]);
    let listed = told(&server, &["ls", "-R", "/tree"]);
    assert_eq!(listed.lines().collect::<Vec<_>>(), paths);
    assert_eq!(told(&server, &["setAcl", "-R", "/tree/d00", "world:anyone:crwda"]), "");
    assert!(told(&server, &["stat", "/tree/d00/k59"]).contains("aclVersion = 1\n"));
    assert!(told(&server, &["stat", "/tree/d01/k00"]).contains("aclVersion = 0\n"));
    assert_eq!(told(&server, &["deleteall", "-b", "7", "/tree/d39"]), "");
    assert_eq!(told(&server, &["getAllChildrenNumber", "/tree"]), format!("{}\n", 39 * 61));
    assert_eq!(told(&server, &["deleteall", "/tree"]), "");
    assert_eq!(told(&server, &["ls", "/"]), "[treehouse, zookeeper]\n");
    assert!(fails(&server, &["deleteall", "/"]).contains("the root cannot be deleted"));
}

#[test]
fn what_could_harm_a_terminal_is_shown_by_number() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path());
    let mut client = Client::connect(server.address).expect("it serves");
    let (header, _) = client.ask(&create("/evil", b"\x1b[2J\xff\x07 ok\n")).expect("an answer");
    assert_eq!(header.err, 0);
    let (header, _) = client.ask(&create("/\u{202e}txt", b"")).expect("an answer");
    assert_eq!(header.err, 0);
    assert_eq!(told(&server, &["get", "/evil"]), "\\u{1b}[2J\\xff\\u{7} ok\n\n");
    assert_eq!(told(&server, &["ls", "/"]), "[evil, zookeeper, \\u{202e}txt]\n");
    assert_eq!(run(&server, &["get", "-r", "/evil"]).stdout, b"\x1b[2J\xff\x07 ok\n");
}

#[test]
fn events_stand_before_what_was_answered_after_them() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path());
    let (out, well) = piped(
        &server,
        "create /w one\nget -w /w\nset /w two\nget /w\n# a comment\n\naddWatch /w\n\
         create /w/c\nprintwatches off\ncreate /w/d\nquit\nls /never\n",
    );
    assert!(well, "{out}");
    let lines: Vec<_> = out.lines().filter(|line| !line.is_empty()).skip(1).collect();
    let zxid = |line: &str| line.split(" zxid: ").next().unwrap_or_default().to_owned();
    let lines: Vec<_> = lines.into_iter().map(zxid).collect();
    let event = |kind: &str, path: &str| {
        format!("WatchedEvent state:SyncConnected type:{kind} path:{path}")
    };
    let expected = [
        "Created /w",
        "one",
        "WATCHER::",
        &event("NodeDataChanged", "/w"),
        "two",
        "WATCHER::",
        &event("NodeCreated", "/w/c"),
        "Created /w/c",
        "Created /w/d",
    ];
    assert_eq!(lines, expected);
    let (_, well) = piped(&server, "get /none\nls /\n");
    assert!(!well, "a command failed");
}

#[test]
fn quotas_are_set_listed_and_removed() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path());
    told(&server, &["create", "/q", "12345"]);
    told(&server, &["create", "/q/c"]);
    assert_eq!(told(&server, &["setquota", "-n", "5", "-B", "100", "/q"]), "");
    let expected = "absolute path is /zookeeper/quota/q/zookeeper_limits\n\
                    Output quota for /q count=5,bytes=-1=;byteHardLimit=100;countHardLimit=-1\n\
                    Output stat for /q count=2,bytes=5\n";
    assert_eq!(told(&server, &["listquota", "/q"]), expected);
    let why = fails(&server, &["setquota", "-n", "1", "/q/c"]);
    assert_eq!(why, "/q/c has a parent /q which has a quota\n");
    told(&server, &["delquota", "-n", "/q"]);
    assert!(told(&server, &["listquota", "/q"]).contains("count=-1,bytes=-1=;byteHardLimit=100"));
    told(&server, &["delquota", "/q"]);
    assert!(fails(&server, &["listquota", "/q"]).contains("quota for /q does not exist."));
    assert_eq!(told(&server, &["ls", "/zookeeper/quota"]), "[]\n");
    told(&server, &["setquota", "-n", "9", "/q/c"]);
    let why = fails(&server, &["setquota", "-n", "1", "/q"]);
    assert_eq!(why, "/q has a child /q/c which has a quota\n");
    assert_eq!(fails(&server, &["setquota", "-n", "1", "/none"]), "/none does not exist.\n");
}

#[test]
fn at_a_terminal() {
    let dir = tempfile::tempdir().expect("a directory");
    let home = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path());
    told(&server, &["create", "/config", "one"]);
    told(&server, &["create", "/config/part"]);
    let start = || {
        let mut command = command(&server, &[]);
        command.env("XDG_STATE_HOME", home.path());
        Terminal::run(command)
    };
    let mut terminal = start();
    terminal.sees("(CONNECTED) 0] ");

    // Verbs and paths are completed, the latter by what the server has.
    terminal.types("ge\t -w /con\t\r");
    terminal.sees("get -w /config");
    terminal.sees("one");
    terminal.sees("(CONNECTED) 1] ");
    terminal.types("ls /config/\t");
    terminal.sees("ls /config/part");

    // An event comes while that line is being edited, and leaves it as it was.
    told(&server, &["set", "/config", "two"]);
    terminal.sees("type:NodeDataChanged path:/config");
    terminal.sees("ls /config/part");
    terminal.types("\r");
    terminal.sees("[]");

    terminal.types("addauth digest me:hunter2\r");
    terminal.sees("(CONNECTED) 3] ");
    terminal.types("whoami\r");
    terminal.sees("digest: me");
    terminal.types("history\r");
    terminal.sees("2 - (not kept: it held credentials)");
    terminal.sees("(CONNECTED) 5] ");
    terminal.types("redo 0\r");
    terminal.sees("two");
    terminal.types("quit\r");
    assert!(terminal.ends().success());

    let file = home.path().join("vivarium/shell_history");
    let mode = std::fs::metadata(&file).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let kept = std::fs::read_to_string(&file).expect("text");
    assert!(kept.contains("get -w /config\n") && !kept.contains("hunter2"), "{kept}");

    // The next shell has the history of this one: up from `quit`.
    let mut terminal = start();
    terminal.sees("(CONNECTED) 0] ");
    terminal.types("\x1b[A\x1b[A");
    terminal.sees("redo 0");
}

#[test]
fn a_lost_server_is_told_and_found_again_with_the_watches() {
    let dir = tempfile::tempdir().expect("a directory");
    let home = tempfile::tempdir().expect("a directory");
    let server = Server::start(dir.path());
    told(&server, &["create", "/kept", "one"]);
    let mut command = command(&server, &[]);
    command.env("XDG_STATE_HOME", home.path());
    let mut terminal = Terminal::run(command);
    terminal.sees("(CONNECTED) 0] ");
    terminal.types("get -w /kept\r");
    terminal.sees("one");
    let address = server.address;
    server.kill();
    terminal.sees("Disconnected: ");
    terminal.types("ls /\r");
    terminal.sees("ls /");
    std::thread::sleep(Duration::from_millis(300));
    let server = Server::start_at(dir.path(), address, &[], Stdio::null());
    terminal.sees("Connected to ");
    told(&server, &["set", "/kept", "two"]);
    terminal.sees("type:NodeDataChanged path:/kept");
    terminal.types("get /kept\r");
    terminal.sees("two");
    // Ctrl-D.
    terminal.types("\x04");
    assert!(terminal.ends().success());
}
