//! A server on which every write takes long to apply: `vivarium serve --config FILE`, with a hook that
//! waits. The variable `SLOW_WRITE_MS` says for how many milliseconds.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use proto::ErrorCode;
use server::config::{Config, Overrides};
use server::serve;
use state::Hooks;
use state::hooks::Touch;

/// Waits before every change.
struct Slow(Duration);

impl Hooks for Slow {
    fn guard(&mut self, _touch: &Touch<'_>) -> Result<(), ErrorCode> {
        std::thread::sleep(self.0);
        Ok(())
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let delay = std::env::var("SLOW_WRITE_MS").ok().and_then(|text| text.parse().ok());
    let ([serve, flag, file], Some(delay)) = (&words[..], delay) else {
        eprintln!("usage: SLOW_WRITE_MS=N slow_server serve --config FILE");
        return ExitCode::from(2);
    };
    assert_eq!((serve.as_str(), flag.as_str()), ("serve", "--config"));
    let config = Config::load(Some(Path::new(file)), [], &Overrides::default());
    let config = config.expect("the configuration is sound");
    let hooks = move || Box::new(Slow(Duration::from_millis(delay))) as Box<dyn Hooks>;
    serve::run(&config, &[], &hooks).expect("it serves")
}
