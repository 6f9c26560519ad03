//! A server that is another program than `vivarium`, though one can tell it only by its hooks, which run no
//! plugins: `vivarium serve --config FILE`. Every write takes `SLOW_WRITE_MS` milliseconds to apply, and it
//! says that it knows the apply version `APPLY_VERSION`; without the variables it is as `vivarium` is.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use server::config::{Config, Overrides};
use server::serve;
use state::Hooks;
use state::hooks::Scope;

struct Odd {
    /// How long it waits before every write.
    slow: Duration,
    version: u32,
}

impl Hooks for Odd {
    fn transaction_begins(&self, _scope: Scope) {
        std::thread::sleep(self.slow);
    }

    fn apply_version(&self) -> u32 {
        self.version
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u32>());
    let (Ok(delay), Ok(version)) = (
        number("SLOW_WRITE_MS").unwrap_or(Ok(0)),
        number("APPLY_VERSION").unwrap_or(Ok(state::APPLY_VERSION)),
    ) else {
        eprintln!("SLOW_WRITE_MS and APPLY_VERSION are numbers");
        return ExitCode::from(2);
    };
    let [serve, flag, file] = &words[..] else {
        eprintln!("usage: [SLOW_WRITE_MS=N] [APPLY_VERSION=N] odd_server serve --config FILE");
        return ExitCode::from(2);
    };
    assert_eq!((serve.as_str(), flag.as_str()), ("serve", "--config"));
    let config = Config::load(Some(Path::new(file)), [], &Overrides::default());
    let config = config.expect("the configuration is sound");
    let slow = Duration::from_millis(delay.into());
    let odd = move |_| Box::new(Odd { slow, version }) as Box<dyn Hooks>;
    serve::run_with(&config, &[], &odd).unwrap_or_else(|error| {
        eprintln!("odd_server: {error:#}");
        ExitCode::FAILURE
    })
}
