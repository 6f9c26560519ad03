//! A server that is another program than `vivarium`, though one can tell it only by its hooks: `vivarium serve
//! --config FILE`. Every write takes `SLOW_WRITE_MS` milliseconds to apply, it says that it knows the apply
//! version `APPLY_VERSION`, and it has not compiled the module of the binding whose name is in the file
//! `NOT_COMPILED`, as long as there is such a file; without the variables it is as `vivarium` is.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use server::config::{Config, Overrides};
use server::serve;
use state::Hooks;
use state::hooks::Scope;
use state::plugins::Plugin;

struct Odd {
    hooks: Box<dyn Hooks>,
    /// How long it waits before every write.
    slow: Duration,
    version: u32,
    not_compiled: Option<PathBuf>,
}

impl Hooks for Odd {
    fn inner(&self) -> Option<&dyn Hooks> {
        Some(&*self.hooks)
    }

    fn apply_version(&self) -> u32 {
        self.version
    }

    fn is_ready(&self, plugin: &Plugin) -> bool {
        let name = self.not_compiled.as_ref().and_then(|file| std::fs::read_to_string(file).ok());
        name.is_none_or(|name| name != plugin.binding.name) && self.hooks.is_ready(plugin)
    }

    fn transaction_begins(&self, scope: Scope) {
        std::thread::sleep(self.slow);
        self.hooks.transaction_begins(scope);
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
        eprintln!(
            "usage: [SLOW_WRITE_MS=N] [APPLY_VERSION=N] [NOT_COMPILED=FILE] odd_server serve --config FILE"
        );
        return ExitCode::from(2);
    };
    assert_eq!((serve.as_str(), flag.as_str()), ("serve", "--config"));
    let config = Config::load(Some(Path::new(file)), [], &Overrides::default());
    let config = config.expect("the configuration is sound");
    let slow = Duration::from_millis(delay.into());
    let not_compiled = std::env::var_os("NOT_COMPILED").map(PathBuf::from);
    let odd = move |hooks| {
        let not_compiled = not_compiled.clone();
        Box::new(Odd { hooks, slow, version, not_compiled }) as Box<dyn Hooks>
    };
    serve::run_with(&config, &[], &odd).unwrap_or_else(|error| {
        eprintln!("odd_server: {error:#}");
        ExitCode::FAILURE
    })
}
