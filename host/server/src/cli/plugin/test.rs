//! `vivarium plugin test`: runs an author's cases on the runtime that servers have.

mod case;
mod ensemble;
mod keeping;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::Args;
use plugin::{Guests, Runtime, THREAD_STACK_BYTES, Tuning};
use state::plugins::{Binding, Mode, PluginLimit};

use self::case::{Case, Cases};
use self::ensemble::{Compiled, Ensemble, Transcript};
use super::build::build;

/// What `--help` ends with.
pub(super) const EXAMPLES: &str = "\
The plugin is built first, and bound as DIR/NAME.toml says, in mode enforce. Each case of DIR/cases/*.toml has a
state of its own, the same that servers have, in memory. Cases of a plugin that declares itself
stateless also run twice in one instance, and fail if that makes a difference. Exit code 1 if a case
fails.

A case:
  [[case]]
  name = \"a tenant has so many znodes and no more\"
  settings = { max-nodes = 2 }                  # in place of the binding's
  before = { \"/tenants/a\" = \"\" }              # there before the binding: observers are built of it
  do = [
      { create = \"/tenants/a/1\", data = \"x\" },
      { create = \"/tenants/a/2\", expect = \"QUOTAEXCEEDED\", reason = \"at most 2\" },
      { multi = [{ delete = \"/tenants/a/1\" }, { create = \"/tenants/a/2\" }], session = 7 },
      { end-session = 7 },
  ]
  after = { \"/tenants\" = \"\", \"/tenants/a\" = \"\", \"/tenants/a/2\" = \"\" }
  store = { \"nodes/a\" = 2 }                     # all that the plugin keeps

Examples:
  vivarium plugin test
  vivarium plugin test plugins/tenant-quota --case session";

/// Flags of `plugin test`.
#[derive(Debug, Args)]
pub(super) struct TestArgs {
    /// Directory of the plugin.
    #[arg(default_value = ".", value_name = "DIR")]
    dir: PathBuf,
    /// A component that was built already; nothing is built then.
    #[arg(long, value_name = "FILE")]
    module: Option<PathBuf>,
    /// The binding; the one *.toml in the directory (Cargo.toml aside) if it is not given.
    #[arg(long, value_name = "FILE")]
    binding: Option<PathBuf>,
    /// Only cases with this in their name.
    #[arg(long, value_name = "TEXT")]
    case: Option<String>,
}

impl TestArgs {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        // Guests run on stacks that threads do not have by default.
        let run = || self.run_here();
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().stack_size(THREAD_STACK_BYTES);
            let thread = thread.spawn_scoped(scope, run).context("no thread can be started")?;
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn run_here(&self) -> anyhow::Result<()> {
        let file = match &self.module {
            Some(file) => file.clone(),
            None => build(&self.dir, None, &[])?.0,
        };
        let bytes =
            std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let runtime = Arc::new(Runtime::new(None, Tuning::default())?);
        let bytes_max = PluginLimit::ModuleBytes.describe().1 as usize;
        let (hash, exports) = runtime
            .load(&bytes, bytes_max)?
            .with_context(|| format!("no server would take {}", file.display()))?;
        let module = Compiled { bytes: &bytes, hash, exports: &exports };
        let binding = self.binding()?;

        let (mut passed, mut failed) = (0, 0);
        let mut out = std::io::stdout();
        for file in tomls(&self.dir.join("cases"))? {
            for case in Cases::read(&file)?.cases {
                if self.case.as_ref().is_some_and(|text| !case.name.contains(text.as_str())) {
                    continue;
                }
                let wrong = check(&runtime, &module, &binding, &case)
                    .with_context(|| format!("{}: {:?}", file.display(), case.name))?;
                if wrong.is_empty() {
                    passed += 1;
                    writeln!(out, "{} ... ok", case.name)?;
                } else {
                    failed += 1;
                    writeln!(out, "{} ... FAILED\n{}", case.name, wrong.trim_end())?;
                }
            }
        }
        writeln!(out, "{passed} passed, {failed} failed")?;
        if failed > 0 {
            bail!("{failed} of {} cases failed", passed + failed);
        }
        if passed == 0 {
            bail!("there is no case to run in {}", self.dir.join("cases").display());
        }
        Ok(())
    }

    fn binding(&self) -> anyhow::Result<toml::Table> {
        let file = match &self.binding {
            Some(file) => file.clone(),
            None => {
                let mut found = tomls(&self.dir)?;
                found.retain(|file| file.file_name().is_some_and(|name| name != "Cargo.toml"));
                match <[PathBuf; 1]>::try_from(found) {
                    Ok([file]) => file,
                    Err(found) => bail!(
                        "{} has {} bindings (*.toml): say with --binding which one is meant",
                        self.dir.display(),
                        found.len()
                    ),
                }
            }
        };
        let text = std::fs::read_to_string(&file)
            .with_context(|| format!("cannot read {}", file.display()))?;
        toml::from_str(&text).with_context(|| format!("{}", file.display()))
    }
}

/// The TOML files of a directory, in order.
fn tomls(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries =
        std::fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<Vec<_>>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    Ok(files)
}

/// Runs a case, and says what is not as it should be.
fn check(
    runtime: &Arc<Runtime>,
    module: &Compiled<'_>,
    binding: &toml::Table,
    case: &Case,
) -> anyhow::Result<String> {
    let binding = bind(binding, case)?;
    let guests = || Arc::new(Guests::new(Arc::clone(runtime)));
    let came = Ensemble::run(&guests(), false, module, &binding, case)?;
    let mut wrong = String::new();
    compare(case, &came, &mut wrong)?;
    if module.exports.is_stateless && wrong.is_empty() {
        let guests = guests();
        for _ in 0..2 {
            let kept = Ensemble::run(&guests, true, module, &binding, case)?;
            if kept != came {
                writeln!(
                    wrong,
                    "  it declares itself stateless, but comes to something else in an instance that was \
                     used before:\n  {kept:?}\n  instead of\n  {came:?}"
                )?;
                break;
            }
        }
    }
    Ok(wrong)
}

/// The binding of a case.
fn bind(binding: &toml::Table, case: &Case) -> anyhow::Result<Binding> {
    let mut table = binding.clone();
    table.extend(case.binding.clone());
    if let Some(settings) = &case.settings {
        table.insert("settings".into(), settings.clone().into());
    }
    let mut binding: Binding = table.try_into().context("the binding makes no sense")?;
    binding.mode = Mode::Enforce;
    binding.check(&[]).map_err(|why| anyhow::anyhow!("the binding makes no sense: {why}"))?;
    Ok(binding)
}

/// Writes down what is not as the case says.
fn compare(case: &Case, came: &Transcript, wrong: &mut String) -> std::fmt::Result {
    match (&case.refused, &came.refused) {
        (None, None) => {}
        (Some(text), Some(why)) if why.contains(text.as_str()) => {}
        (Some(text), Some(why)) => {
            writeln!(wrong, "  it is refused for another reason than {text:?}: {why}")?;
        }
        (None, Some(why)) => writeln!(wrong, "  it is refused: {why}")?,
        (Some(text), None) => writeln!(wrong, "  it is not refused, expected: {text:?}")?,
    }
    for (number, (step, came)) in (1..).zip(case.steps.iter().zip(&came.steps)) {
        let expected = step.expect.as_deref().unwrap_or("ok");
        let because =
            if came.reason.is_empty() { String::new() } else { format!(" ({})", came.reason) };
        if came.what != expected {
            writeln!(wrong, "  step {number}: {}{because}, expected {expected}", came.what)?;
        }
        if let Some(reason) = &step.reason
            && !came.reason.contains(reason.as_str())
        {
            writeln!(wrong, "  step {number}: reason {:?}, expected {reason:?}", came.reason)?;
        }
        if let Some(ids) = &step.ids
            && *ids != came.ids
        {
            writeln!(wrong, "  step {number}: ids {:?}, expected {ids:?}", came.ids)?;
        }
    }
    if came.refused.is_some() {
        return Ok(());
    }
    if let Some(after) = &case.after
        && *after != came.tree
    {
        writeln!(wrong, "  znodes: {:?}\n  expected {after:?}", came.tree)?;
    }
    if let Some(store) = &case.store
        && *store != came.store
    {
        writeln!(wrong, "  it keeps {:?}\n  expected {store:?}", came.store)?;
    }
    Ok(())
}
