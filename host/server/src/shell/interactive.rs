//! The interactive shell: at a terminal with editing, history and completion; from a pipe a line at
//! a time.

use std::io::{BufRead, BufWriter, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;

use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{CompletionType, Config, Editor};
use tokio::runtime::Runtime;

use super::command::{self, Command};
use super::complete::{Completions, Current};
use super::history;
use super::printer::Printer;
use super::problem::Problem;
use super::{CLOSE_MAX, local, text, told, words};
use crate::remote::{Notice, Options, Session, Target};

/// How many commands `history` lists.
const LISTED: usize = 11;

struct Shell<'r> {
    runtime: &'r Runtime,
    options: Options,
    current: Current,
    printer: Arc<Printer>,
    /// The commands of this shell, as `history` and `redo` number them, credentials left out.
    lines: Vec<String>,
    /// Whether Ctrl-C ends a command, not the shell.
    interruptible: bool,
    failed: bool,
}

/// What comes after a command.
enum Next {
    Go,
    Leave,
}

/// Reads and runs commands until the input or the user ends it.
pub(super) fn run(runtime: &Runtime, mut options: Options) -> anyhow::Result<ExitCode> {
    options.reconnect = true;
    let current = Current::default();
    let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let shell = |printer: Printer| Shell {
        runtime,
        options,
        current: Arc::clone(&current),
        printer: Arc::new(printer),
        lines: Vec::new(),
        interruptible: terminal,
        failed: false,
    };
    if !terminal {
        return Ok(shell(Printer::plain()).piped());
    }
    let config = Config::builder()
        .completion_type(CompletionType::List)
        .history_ignore_dups(true)?
        .history_ignore_space(true)
        .max_history_size(history::COMMANDS_MAX)?
        .build();
    let mut editor: Editor<Completions, FileHistory> = Editor::with_config(config)?;
    editor.set_helper(Some(Completions::new(Arc::clone(&current), runtime.handle().clone())));
    let printer = match editor.create_external_printer() {
        Ok(printer) => Printer::terminal(printer),
        // A terminal without cursor control: events come between lines as they are.
        Err(_) => Printer::plain(),
    };
    Ok(shell(printer).terminal(editor))
}

impl Shell<'_> {
    fn piped(mut self) -> ExitCode {
        if let Err(problem) = self.connect(self.options.target.clone()) {
            told(&problem);
            return ExitCode::FAILURE;
        }
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { break };
            if let Next::Leave = self.line(&line) {
                break;
            }
        }
        self.leave();
        if self.failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }

    fn terminal(mut self, mut editor: Editor<Completions, FileHistory>) -> ExitCode {
        let mut out = std::io::stdout();
        let _ =
            writeln!(out, "Vivarium shell. `help` lists the verbs, Tab completes, Ctrl-D leaves.");
        let kept = history::file();
        if let Some(file) = &kept
            && let Err(error) = editor.load_history(file)
        {
            command::note(&format!("the history {} cannot be read: {error}", file.display()));
        }
        if let Err(problem) = self.connect(self.options.target.clone()) {
            told(&problem);
            command::note("`connect HOST:PORT` tries another server");
        }
        loop {
            if self.printer.dropped() {
                command::note("events came faster than they could be shown; some were not");
            }
            match editor.readline(&self.prompt()) {
                Ok(line) => {
                    if history::may_keep(&line)
                        && editor.add_history_entry(&line).unwrap_or(false)
                        && let Some(file) = &kept
                    {
                        // The command matters more than its place in the history.
                        let _ = editor.append_history(file);
                    }
                    if let Next::Leave = self.line(&line) {
                        break;
                    }
                }
                Err(ReadlineError::Interrupted) => {}
                Err(ReadlineError::Eof) => break,
                Err(error) => {
                    told(&Problem::Told(format!("the terminal cannot be read: {error}")));
                    self.failed = true;
                    break;
                }
            }
        }
        self.leave();
        ExitCode::SUCCESS
    }

    fn prompt(&self) -> String {
        let current = self.current.lock();
        let (server, state) = match current.as_ref() {
            None => (self.options.target.to_string(), "CLOSED"),
            Some((session, _)) => {
                let status = session.status();
                let state = match (status.connected, status.read_only) {
                    (false, _) => "CONNECTING",
                    (true, true) => "CONNECTEDREADONLY",
                    (true, false) => "CONNECTED",
                };
                (status.server, state)
            }
        };
        format!("[zk: {server}({state}) {}] ", self.lines.len())
    }

    /// Runs one line; what fails is told.
    fn line(&mut self, line: &str) -> Next {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            return Next::Go;
        }
        let words = match words::split(line) {
            Ok(words) => words,
            Err(wrong) => {
                told(&Problem::Told(wrong));
                self.failed = true;
                return Next::Go;
            }
        };
        let kept = if history::may_keep(line) { line } else { "(not kept: it held credentials)" };
        self.lines.push(kept.to_owned());
        match self.words(&words) {
            Ok(next) => next,
            Err(problem) => {
                told(&problem);
                self.failed = true;
                // Whoever read the output has left.
                if matches!(problem, Problem::Output(_)) { Next::Leave } else { Next::Go }
            }
        }
    }

    fn words(&mut self, words: &[String]) -> Result<Next, Problem> {
        let (verb, parsed) = command::parse(words)?;
        if local(verb.name, &parsed)? {
            return Ok(Next::Go);
        }
        let mut out = std::io::stdout();
        match verb.name {
            "quit" | "exit" => return Ok(Next::Leave),
            "close" => self.close(),
            "connect" => {
                let target = Target::parse(parsed.arg(0))?;
                self.connect(target)?;
            }
            "history" => {
                let first = self.lines.len().saturating_sub(LISTED);
                for (at, line) in self.lines.iter().enumerate().skip(first) {
                    writeln!(out, "{at} - {}", text::line(line))?;
                }
            }
            "redo" => return self.redo(parsed.arg(0)),
            "printwatches" => match parsed.optional(0) {
                None => {
                    let now = if self.printer.watches() { "on" } else { "off" };
                    writeln!(out, "printwatches is {now}")?;
                }
                Some("on") => self.printer.set_watches(true),
                Some("off") => self.printer.set_watches(false),
                Some(other) => {
                    return Err(format!("expected on or off, got {}", text::line(other)).into());
                }
            },
            _ => {
                let current = self.current.lock().clone();
                let (session, target) =
                    current.ok_or("Not connected; `connect HOST:PORT` connects")?;
                let mut out = BufWriter::new(&mut out);
                let mut cx =
                    Command { session: &session, target: &target, out: &mut out, stays: true };
                let done = self.runtime.block_on(async {
                    tokio::select! {
                        done = cx.run(verb, &parsed) => done,
                        Ok(()) = tokio::signal::ctrl_c(), if self.interruptible => {
                            Err("interrupted; what was done is done".into())
                        }
                    }
                });
                out.flush()?;
                done?;
            }
        }
        Ok(Next::Go)
    }

    fn redo(&mut self, number: &str) -> Result<Next, Problem> {
        let own = self.lines.len() - 1;
        let at: usize = number.parse().map_err(|_| format!("expected a number, got {number}"))?;
        let line = self.lines.get(at).filter(|_| at < own).cloned();
        let line = line.ok_or("Command index out of range; `history` lists the commands")?;
        let words = words::split(&line)?;
        if words.first().is_some_and(|verb| verb == "redo") {
            return Err("No redoing redos".into());
        }
        if let Some(last) = self.lines.last_mut() {
            last.clone_from(&line);
        }
        self.words(&words)
    }

    fn connect(&mut self, target: Target) -> Result<(), Problem> {
        self.close();
        self.options.target = target.clone();
        let (printer, shown) = (Arc::clone(&self.printer), target.clone());
        let notify = move |notice: Notice| printer.notice(&notice, &shown);
        let open = Session::open(self.options.clone(), Box::new(notify));
        let session = self.runtime.block_on(open)?;
        *self.current.lock() = Some((session, target));
        Ok(())
    }

    fn close(&mut self) {
        let Some((session, _)) = self.current.lock().take() else { return };
        // A session that cannot be closed ends by its timeout.
        let closing = async { tokio::time::timeout(CLOSE_MAX, session.close()).await };
        let _ = self.runtime.block_on(closing);
    }

    fn leave(&mut self) {
        self.close();
    }
}
