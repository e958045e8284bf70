//! The console as a program uses it, for tests of probes.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

/// A session for a program: lines of JSON, each answer ended by `{"done":…}`, and what comes between answers beside it.
pub(crate) struct Session {
    pub(crate) stream: UnixStream,
    pub(crate) lines: BufReader<UnixStream>,
    pub(crate) probes: Vec<String>,
}

impl Session {
    pub(crate) fn open(path: &Path) -> Session {
        let stream = UnixStream::connect(path).expect("a backdoor");
        stream.set_read_timeout(Some(LIMIT)).expect("a limit");
        let lines = BufReader::new(stream.try_clone().expect("a second handle"));
        let mut session = Session { stream, lines, probes: Vec::new() };
        session.ask("#lines");
        session.probes.clear();
        session
    }

    /// What is in `{"line":"…"}` and the like.
    pub(crate) fn line(&mut self) -> (String, String) {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("a line");
        let Some((what, text)) = line.trim_end().strip_prefix("{\"").and_then(|l| l.split_once("\":\"")) else {
            return (String::new(), line);
        };
        let text = text.trim_end_matches("\"}").replace("\\\"", "\"").replace("\\\\", "\\");
        (what.to_owned(), text)
    }

    pub(crate) fn ask(&mut self, line: &str) -> Vec<String> {
        writeln!(self.stream, "{line}").expect("sent");
        self.answer()
    }

    pub(crate) fn answer(&mut self) -> Vec<String> {
        let mut answer = Vec::new();
        loop {
            match self.line() {
                (what, _) if what == "done" => return answer,
                (what, text) if what == "probe" => self.probes.push(text),
                (_, text) => answer.push(text),
            }
        }
    }

    /// The next line of a probe.
    pub(crate) fn told(&mut self) -> String {
        if !self.probes.is_empty() {
            return self.probes.remove(0);
        }
        loop {
            let (what, text) = self.line();
            if what == "probe" {
                return text;
            }
        }
    }
}
