//! A program at a terminal of its own, driven as somebody would who types.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

const PATIENCE: Duration = Duration::from_secs(20);

/// A program at a terminal; killed when dropped.
pub(crate) struct Terminal {
    keyboard: File,
    screen: Arc<Mutex<Vec<u8>>>,
    child: Child,
    /// How much of the screen was looked at.
    seen: usize,
}

impl Terminal {
    pub(crate) fn run(mut command: Command) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("there are terminals");
        grantpt(&master).expect("it is ours");
        unlockpt(&master).expect("it is ours");
        let name = ptsname(&master, Vec::new()).expect("it has a name");
        let name = name.into_string().expect("text");
        let open = || OpenOptions::new().read(true).write(true).open(&name).expect("it opens");
        command.stdin(open()).stdout(open()).stderr(open()).env("TERM", "xterm");
        let child = command.spawn().expect("it starts");
        let keyboard = File::from(master);
        let mut reader = keyboard.try_clone().expect("it can be shared");
        let screen = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&screen);
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            // Reading fails when the program has ended.
            while let Ok(read @ 1..) = reader.read(&mut chunk) {
                shared.lock().expect("nobody panics").extend_from_slice(&chunk[..read]);
            }
        });
        Self { keyboard, screen, child, seen: 0 }
    }

    pub(crate) fn types(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("it takes keys");
    }

    /// Waits until the text stands behind what was looked at before; gives all up to its end.
    pub(crate) fn sees(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let screen = self.screen.lock().expect("nobody panics").clone();
            let new = &screen[self.seen..];
            let found = new.windows(text.len()).position(|w| w == text.as_bytes());
            if let Some(at) = found {
                let end = at + text.len();
                self.seen += end;
                return String::from_utf8_lossy(&new[..end]).into_owned();
            }
            let shown = String::from_utf8_lossy(new);
            assert!(Instant::now() < deadline, "expected {text:?}, the screen has {shown:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits for the program's end.
    pub(crate) fn ends(&mut self) -> std::process::ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Both fail where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
