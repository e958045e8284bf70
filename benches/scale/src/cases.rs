//! What is measured: the parts, their cases, and what they are called for people. Must not know: how anything is run.

use crate::fair::{LOADS, SELFISH};

/// What can be asked for by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Tasks,
    Echo,
    Memory,
    Fairness,
    Lateness,
}

/// One process, or one server and its load: so many workers, and what tells it from the others of its part (a number of tasks or
/// connections, or a name).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Case {
    pub(crate) part: Part,
    pub(crate) workers: usize,
    pub(crate) at: String,
}

/// One and two, and more than this machine may have: those show that nothing breaks, and what it costs.
pub(crate) const WORKERS: [usize; 4] = [1, 2, 4, 8];
pub(crate) const TASKS: [usize; 5] = [100, 1000, 10_000, 100_000, 1_000_000];
pub(crate) const CONNECTIONS: [usize; 5] = [1, 10, 100, 1000, 10_000];
/// Of the burst.
pub(crate) const BURST: usize = 1_000_000;

/// A tenfold number that costs more than so many times as much for each operation is told of.
pub(crate) const STEP: f64 = 2.0;

/// What a task with a stack in use takes, and what the rest of such a process does.
const BYTES_PER_TASK: u64 = 5300;
const BYTES_BESIDE: u64 = 256 << 20;

impl Part {
    pub(crate) const ALL: [Part; 5] = [Part::Tasks, Part::Echo, Part::Memory, Part::Fairness, Part::Lateness];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Part::Tasks => "tasks",
            Part::Echo => "echo",
            Part::Memory => "memory",
            Part::Fairness => "fairness",
            Part::Lateness => "lateness",
        }
    }

    /// In the order in which a round runs them.
    pub(crate) fn cases(self, most: usize) -> Vec<Case> {
        let case = |workers: usize, at: &dyn ToString| Case { part: self, workers, at: at.to_string() };
        let numbers = |all: &[usize]| {
            let counts = all.iter().filter(|n| **n <= most);
            counts.flat_map(|n| WORKERS.map(|workers| case(workers, n))).collect()
        };
        match self {
            Part::Tasks => numbers(&TASKS),
            Part::Echo => numbers(&CONNECTIONS),
            Part::Memory => [1, 2].map(|workers| case(workers, &BURST.min(most))).into(),
            Part::Fairness => SELFISH.iter().map(|(name, _)| case(1, name)).collect(),
            Part::Lateness => LOADS.iter().flat_map(|(name, _)| [1, 2].map(|workers| case(workers, name))).collect(),
        }
    }
}

impl Case {
    /// The number of tasks or connections; 0 for a name.
    pub(crate) fn number(&self) -> usize {
        self.at.parse().unwrap_or(0)
    }

    /// What has to be free for it.
    pub(crate) fn bytes(&self) -> u64 {
        match self.part {
            Part::Tasks | Part::Memory => self.number() as u64 * BYTES_PER_TASK + BYTES_BESIDE,
            _ => 0,
        }
    }
}

/// A number as people write it.
pub(crate) fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
