//! How often each runtime runs each case: one number for all, and others for some workloads.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::cases::workloads;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rounds {
    all: usize,
    of: BTreeMap<&'static str, usize>,
}

impl Rounds {
    pub(super) fn of(&self, workload: &str) -> usize {
        self.of.get(workload).copied().unwrap_or(self.all)
    }
}

/// Servers are held against the bare loop to the hundredth, and that takes more rounds than to tell a half from a whole.
impl Default for Rounds {
    fn default() -> Rounds {
        Rounds { all: 5, of: BTreeMap::from([("echo", 15), ("http", 15)]) }
    }
}

/// `9`, or `9,echo=15`.
impl FromStr for Rounds {
    type Err = ();

    fn from_str(text: &str) -> Result<Rounds, ()> {
        let count = |text: &str| text.parse::<usize>().ok().filter(|n| *n > 0).ok_or(());
        let mut words = text.split(',');
        let all = count(words.next().unwrap_or_default())?;
        let one = |word: &str| {
            let (name, n) = word.split_once('=').ok_or(())?;
            let known = workloads().into_iter().find(|known| *known == name).ok_or(())?;
            Ok((known, count(n)?))
        };
        Ok(Rounds { all, of: words.map(one).collect::<Result<_, ()>>()? })
    }
}

impl fmt::Display for Rounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} round{}", self.all, if self.all == 1 { "" } else { "s" })?;
        self.of.iter().try_for_each(|(workload, n)| write!(f, ", {n} of {workload}"))
    }
}

#[cfg(test)]
mod tests {
    use super::Rounds;

    #[test]
    fn rounds_are_one_number_and_others_for_some_workloads() {
        let rounds: Rounds = "9,echo=15,http=3".parse().unwrap();
        assert_eq!(["yield", "echo", "http"].map(|workload| rounds.of(workload)), [9, 15, 3]);
        assert_eq!(rounds.to_string(), "9 rounds, 15 of echo, 3 of http");
        assert_eq!("1".parse::<Rounds>().unwrap().of("echo"), 1);
        for wrong in ["", "0", "echo=15", "5,ehco=15", "5,echo", "5,echo=0"] {
            assert!(wrong.parse::<Rounds>().is_err(), "{wrong:?} was understood");
        }
    }
}
