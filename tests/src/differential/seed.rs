//! One seed: its sessions, its random steps, its scenarios.

use proto::Request;

use super::generate::Generator;
use super::request::Draft;
use super::run::{LONG_MS, Mismatch, Run};
use super::servers::Profile;
use super::session;

/// What a seed does.
pub(super) struct Seed {
    pub(super) number: u64,
    pub(super) profile: Profile,
    pub(super) operations: usize,
}

impl Seed {
    /// Runs the seed on a pair of servers. All of its sessions are closed at its end.
    pub(super) fn run(&self, run: &mut Run<'_>) -> Result<(), Mismatch> {
        let top = format!("/seed-{}", self.number);
        let mut generator = Generator::new(self.number, &top, self.profile);
        let sessions = 3 + generator.random.below(3);
        for number in 0..sessions {
            run.open(&format!("s{number}"), &session::new_session(LONG_MS))?;
            if self.profile == Profile::Strict || number == 0 {
                run.ask(number, &[Generator::super_user()])?;
            }
        }
        run.barrier()?;
        run.prepare(&top)?;
        let before = run.tally.operations;
        while run.tally.operations < before + self.operations {
            self.step(run, &mut generator)?;
        }
        // A new connection has no watches, which could see more than a scenario intends.
        for who in 0..run.sessions.len() {
            run.attach(who)?;
            run.ask(who, &[Generator::super_user()])?;
        }
        run.barrier()?;
        self.scenarios(run, &top)?;
        while !run.sessions.is_empty() {
            self.connected(run, 0)?;
            run.close(0)?;
        }
        Ok(())
    }

    fn step(&self, run: &mut Run<'_>, generator: &mut Generator) -> Result<(), Mismatch> {
        let who = generator.random.below(run.sessions.len());
        if run.sessions[who].wires.is_none() {
            if generator.random.percent(15) {
                run.wrong_password(who)?;
            }
            return self.attach(run, generator, who);
        }
        match generator.random.below(400) {
            0..=2 => run.wrong_password(who),
            3..=8 => self.attach(run, generator, who),
            9..=11 => {
                self.connected(run, who)?;
                run.close(who)?;
                let name = format!("s{}", run.tally.operations);
                let who = run.open(&name, &session::new_session(LONG_MS))?;
                self.introduce(run, generator, who)
            }
            12..=20 => {
                generator.seen = run.last();
                Ok(())
            }
            21..=70 => run.step(who, &generator.burst()),
            _ => run.step(who, &[generator.alone()]),
        }
    }

    fn attach(
        &self,
        run: &mut Run<'_>,
        generator: &mut Generator,
        who: usize,
    ) -> Result<(), Mismatch> {
        run.attach(who)?;
        self.introduce(run, generator, who)
    }

    /// What a new connection says first. A strict server hangs up on one that says anything else.
    fn introduce(
        &self,
        run: &mut Run<'_>,
        generator: &mut Generator,
        who: usize,
    ) -> Result<(), Mismatch> {
        if self.profile == Profile::Strict && generator.random.percent(80) {
            return run.step(who, &[Generator::super_user()]);
        }
        if generator.random.percent(20) {
            return run.step(who, &[generator.alone()]);
        }
        run.barrier()
    }

    fn connected(&self, run: &mut Run<'_>, who: usize) -> Result<(), Mismatch> {
        if run.sessions[who].wires.is_none() {
            run.attach(who)?;
        }
        run.step(who, &[Generator::super_user(), Draft::from(Request::Ping)])
    }

    fn scenarios(&self, run: &mut Run<'_>, top: &str) -> Result<(), Mismatch> {
        run.long_path(top)?;
        if self.profile == Profile::Strict {
            return Ok(());
        }
        run.quota_in_multi(top)?;
        run.internal(top)?;
        run.odd_connects()?;
        if self.number.is_multiple_of(2) {
            run.expiry(top, self.number.is_multiple_of(4))?;
            run.reaping(top)?;
        }
        Ok(())
    }
}
