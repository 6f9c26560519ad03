//! What a log must hold, in the simplest words: the state after every single record.

use super::*;

/// The content of a log.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Model {
    pub(super) trimmed: Position,
    pub(super) entries: Vec<Entry>,
    pub(super) hard_state: HardState,
    pub(super) marker: Option<(Position, Bytes)>,
}

impl Model {
    pub(super) fn born() -> Self {
        let hard_state = HardState { term: BIRTH.term, vote: 0, commit: BIRTH.index };
        Self { trimmed: BIRTH, entries: Vec::new(), hard_state, marker: None }
    }

    pub(super) fn of<D: Disk>(log: &Log<D>) -> Self {
        Self {
            trimmed: log.trimmed(),
            entries: all(log),
            hard_state: log.hard_state(),
            marker: log.marker().map(|marker| (marker.at, marker.bytes.clone())),
        }
    }

    pub(super) fn last(&self) -> u64 {
        self.trimmed.index + self.entries.len() as u64
    }

    /// As it is after opening: what is trimmed counts as committed.
    fn opened(&self) -> Self {
        let commit = self.hard_state.commit.max(self.trimmed.index);
        Self { hard_state: HardState { commit, ..self.hard_state }, ..self.clone() }
    }
}

/// A log with its model: every state since the last one that is known to be durable.
pub(super) struct Checked {
    pub(super) log: Log<SimDisk>,
    pub(super) states: Vec<Model>,
    /// Makes every entry's data its own.
    unique: u64,
}

impl Checked {
    pub(super) fn new(log: Log<SimDisk>) -> Self {
        Self { log, states: vec![Model::born()], unique: 0 }
    }

    pub(super) fn now(&self) -> &Model {
        self.states.last().unwrap()
    }

    /// One random call. It buffers something, or, as a trim or an install, syncs.
    pub(super) fn step(&mut self, rng: &mut SimRng) -> Result<(), LogError> {
        let HardState { term, vote, commit } = self.now().hard_state;
        let (trimmed, last) = (self.now().trimmed.index, self.now().last());
        match rng.below(100) {
            0..55 => self.append(last + 1, rng),
            55..65 if commit < last => self.append(commit + 1 + rng.below(last - commit), rng),
            55..80 => {
                let commit = commit + rng.below(last - commit.min(last) + 1);
                let raise = rng.below(2);
                let vote = if raise == 1 { rng.below(4) } else { vote };
                self.hard_state(HardState { term: term + raise, vote, commit });
            }
            80..97 => {
                let index = trimmed + rng.below(commit.min(last).saturating_sub(trimmed) + 1);
                return self.trim(index);
            }
            97 => self.set_marker(rng),
            _ => return self.install(rng),
        }
        Ok(())
    }

    fn append(&mut self, from: u64, rng: &mut SimRng) {
        let term = self.now().hard_state.term;
        let mut entries = Vec::new();
        for index in from..=from + rng.below(4) {
            self.unique += 1;
            let bytes = if rng.chance(2) { 9000 } else { rng.below(700) as usize };
            let mut entry = entry(index, term, bytes);
            entry.context = Bytes::from(self.unique.to_string());
            entries.push(entry);
        }
        self.log.append(&entries);
        let mut model = self.now().clone();
        if from <= model.last() {
            model.entries.truncate((from - model.trimmed.index - 1) as usize);
            self.states.push(model.clone());
        }
        for entry in entries {
            model.entries.push(entry);
            self.states.push(model.clone());
        }
    }

    fn hard_state(&mut self, hard_state: HardState) {
        self.log.set_hard_state(hard_state);
        let model = Model { hard_state, ..self.now().clone() };
        self.states.push(model);
    }

    fn trim(&mut self, index: u64) -> Result<(), LogError> {
        let trimmed = self.log.trim(index);
        let mut model = self.now().clone();
        let count = (index - model.trimmed.index) as usize;
        let last = model.entries.drain(..count).next_back();
        if let Some(entry) = last {
            model.trimmed = Position { index, term: entry.term };
            self.states.push(model);
            trimmed?;
            self.durable();
        }
        Ok(())
    }

    fn install(&mut self, rng: &mut SimRng) -> Result<(), LogError> {
        let mut model = self.now().clone();
        let at = Position { index: model.last() + rng.below(20), term: model.hard_state.term };
        let bytes = Bytes::from(vec![rng.below(256) as u8; rng.below(100) as usize]);
        let installed = self.log.install(at.index, at.term, &bytes);
        model = Model { trimmed: at, entries: vec![], marker: Some((at, bytes)), ..model };
        self.states.push(model.clone());
        self.states.push(model.opened());
        installed?;
        self.durable();
        Ok(())
    }

    fn set_marker(&mut self, rng: &mut SimRng) {
        let mut model = self.now().clone();
        let index = model.trimmed.index + rng.below(model.last() - model.trimmed.index + 1);
        let term = self.log.term(index).expect("an index of the log");
        let (at, bytes) = (Position { index, term }, Bytes::from(vec![7; rng.below(100) as usize]));
        self.log.set_marker(at, &bytes);
        model.marker = Some((at, bytes));
        self.states.push(model);
    }

    /// Syncs; what was buffered must survive from now on.
    pub(super) fn sync(&mut self) -> Result<(), LogError> {
        self.log.sync()?;
        self.durable();
        Ok(())
    }

    fn durable(&mut self) {
        self.states.drain(..self.states.len() - 1);
    }

    /// Takes a log that was opened again: it must hold one of the states.
    pub(super) fn reopened(&mut self, log: Log<SimDisk>) -> Result<(), String> {
        let found = Model::of(&log);
        if !self.states.iter().any(|state| state.opened() == found) {
            return Err(format!(
                "after a crash the log is ({:?}, {}] {:?}; the last durable state ended at {}, \
                 {:?}, the last one buffered at {}",
                found.trimmed,
                found.last(),
                found.hard_state,
                self.states[0].last(),
                self.states[0].hard_state,
                self.now().last(),
            ));
        }
        self.states = vec![found];
        self.log = log;
        Ok(())
    }
}
