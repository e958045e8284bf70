//! The list of tests that cannot apply, each with a reason from a fixed list of facts about std.

use std::fmt;

use crate::suite::FILES;

/// A fact about std because of which a test cannot apply to `coro`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The test asserts something of the operating system's threads (their ids, names, stacks, exit), which tasks of
    /// one worker share.
    OsThread,
    /// The test spins without a wait and relies on the operating system to run its other threads meanwhile.
    Preemption,
    /// The test asserts what only the unstable form of one of std's traits can do.
    Unstable,
}

impl Reason {
    const ALL: [(Reason, &'static str); 3] =
        [(Reason::OsThread, "os-thread"), (Reason::Preemption, "preemption"), (Reason::Unstable, "unstable")];

    /// What is written in the file.
    pub fn code(self) -> &'static str {
        Reason::ALL.iter().find(|(reason, _)| *reason == self).map_or("", |(_, code)| code)
    }
}

/// A test that is not held against `coro`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exclusion {
    /// The file, by its path below `library/`.
    pub file: String,
    /// The test's name in it.
    pub test: String,
    /// The fact about std.
    pub reason: Reason,
    /// One sentence.
    pub why: String,
}

/// A line that is no exclusion.
#[derive(Debug, PartialEq, Eq)]
pub struct BadLine {
    line: usize,
    what: &'static str,
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exclusions.txt, line {}: {}", self.line, self.what)
    }
}

impl std::error::Error for BadLine {}

/// Reads `file :: test :: reason :: sentence`, one a line; empty lines and those that begin with `#` are skipped.
///
/// # Errors
/// The first line that has another form, an unknown file or reason, no sentence, or a test that was named before.
pub fn parse(text: &str) -> Result<Vec<Exclusion>, BadLine> {
    let mut out: Vec<Exclusion> = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let bad = |what| BadLine { line: i + 1, what };
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let parts: Vec<&str> = line.splitn(4, " :: ").map(str::trim).collect();
        let [file, test, code, why] = parts[..] else {
            return Err(bad("is not `file :: test :: reason :: sentence`"));
        };
        if !FILES.iter().any(|f| f.path == file) {
            return Err(bad("names a file that is not in the suite"));
        }
        let Some((reason, _)) = Reason::ALL.iter().find(|(_, known)| *known == code) else {
            return Err(bad("has a reason that is not in the fixed list"));
        };
        if why.len() < 10 || !why.ends_with('.') {
            return Err(bad("needs a sentence that says why"));
        }
        if out.iter().any(|e| e.file == file && e.test == test) {
            return Err(bad("names a test a second time"));
        }
        out.push(Exclusion { file: file.into(), test: test.into(), reason: *reason, why: why.into() });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "std/src/thread/tests.rs";

    #[test]
    fn the_list_in_the_repository_is_well_formed() {
        assert_eq!(parse(include_str!("../exclusions.txt")).err(), None);
    }

    #[test]
    fn lines_are_read() {
        let got = parse(&format!("# head\n\n{FILE} :: a_b :: os-thread :: It asks the thread :: id.\n")).unwrap();
        assert_eq!(got.len(), 1);
        assert_eq!((got[0].test.as_str(), got[0].reason), ("a_b", Reason::OsThread));
        assert_eq!(got[0].why, "It asks the thread :: id.");
        assert_eq!(got[0].reason.code(), "os-thread");
    }

    #[test]
    fn bad_lines_are_named() {
        let good = format!("{FILE} :: a :: unstable :: It is not public.");
        for bad in [
            format!("{FILE} :: a :: unstable"),
            "std/src/other.rs :: a :: unstable :: It is not public.".to_owned(),
            format!("{FILE} :: a :: lazy :: It is not public."),
            format!("{FILE} :: a :: unstable :: No"),
            format!("{FILE} :: a :: os-thread :: It is named again."),
        ] {
            assert_eq!(parse(&format!("{good}\n{bad}")).unwrap_err().line, 2, "{bad}");
        }
    }
}
