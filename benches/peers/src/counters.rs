//! What the kernel and the processor count of another process, by `perf`: system calls and user instructions.
//!
//! Both cost the one that is counted a little, so it happens after everything else was measured. Many virtual machines count no
//! instructions, and without `perf` nothing is counted: that is told, once, before the first round.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

pub(crate) struct Counter {
    pub(crate) metric: &'static str,
    pub(crate) what: &'static str,
    /// As perf calls it.
    event: &'static str,
}

pub(crate) const COUNTERS: [Counter; 2] = [
    Counter { metric: "user_instructions_per_req", what: "user instructions per request", event: "instructions:u" },
    Counter { metric: "syscalls_per_req", what: "system calls per request", event: "raw_syscalls:sys_enter" },
];

impl Counter {
    /// What a report of perf's says of it, in its form with commas: the count, or why there is none.
    fn read(&self, report: &str) -> Result<f64, String> {
        let lines = report.lines().filter_map(|line| line.split_once(",,"));
        let count = lines.filter(|(_, rest)| rest.split(',').next() == Some(self.event)).map(|(count, _)| count).next();
        let count = count.ok_or("perf does not know such an event here")?;
        count.parse().map_err(|_| format!("perf says {:?}", count.trim_matches(['<', '>'])))
    }

    /// Nothing if it counts here, or why not.
    pub(crate) fn missing(&self) -> Option<String> {
        let output = Command::new("perf").args(["stat", "-x,", "-e", self.event, "true"]).stdin(Stdio::null()).output();
        match output {
            Err(error) => Some(format!("perf: {error}")),
            Ok(output) => self.read(&String::from_utf8_lossy(&output.stderr)).err(),
        }
    }
}

/// A perf that counts a process, or is ready to.
struct Perf {
    process: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Perf {
    /// Counts nothing yet.
    fn attach(server: i32, counters: &[&Counter]) -> io::Result<Perf> {
        let events: Vec<_> = counters.iter().map(|counter| counter.event).collect();
        let mut process = Command::new("perf")
            .args([
                "stat",
                "-x,",
                "-D",
                "-1",
                "--control",
                "fd:0,1",
                "-e",
                &events.join(","),
                "-p",
                &server.to_string(),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let (Some(orders), Some(answers)) = (process.stdin.take(), process.stdout.take()) else {
            return Err(io::Error::other("no pipe to perf"));
        };
        Ok(Perf { process, orders, answers: BufReader::new(answers) })
    }

    /// Done when this returns.
    fn order(&mut self, order: &str) -> io::Result<()> {
        writeln!(self.orders, "{order}")?;
        match self.answers.read_until(b'\n', &mut Vec::new())? {
            0 => Err(io::Error::other("perf ended")),
            _ => Ok(()),
        }
    }

    /// Its report.
    fn end(&mut self) -> io::Result<String> {
        // SAFETY: the process is ours and was not waited for, so that its number is its own.
        if unsafe { libc::kill(self.process.id() as i32, libc::SIGINT) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let mut report = String::new();
        if let Some(mut pipe) = self.process.stderr.take() {
            pipe.read_to_string(&mut report)?;
        }
        self.process.wait()?;
        Ok(report)
    }
}

impl Drop for Perf {
    fn drop(&mut self) {
        // It has mostly ended already, which is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What was counted of a process while something ran, by metric, and what that something gave.
pub(crate) fn count<T>(
    server: i32,
    metrics: &[String],
    run: impl FnOnce() -> io::Result<T>,
) -> io::Result<(Vec<(&'static str, f64)>, T)> {
    let counters: Vec<_> = COUNTERS.iter().filter(|counter| metrics.iter().any(|m| m == counter.metric)).collect();
    let mut perf = Perf::attach(server, &counters)?;
    perf.order("enable")?;
    let done = run()?;
    perf.order("disable")?;
    let report = perf.end()?;
    let count = |counter: &&Counter| Ok((counter.metric, counter.read(&report).map_err(io::Error::other)?));
    Ok((counters.iter().map(count).collect::<io::Result<_>>()?, done))
}

#[cfg(test)]
mod tests {
    use super::COUNTERS;

    #[test]
    fn a_report_of_perf_is_read() {
        let report =
            "Events disabled\n<not supported>,,instructions:u,0,100.00,,\n144,,raw_syscalls:sys_enter,1,100.00,,\n";
        assert_eq!(COUNTERS[0].read(report), Err("perf says \"not supported\"".to_owned()));
        assert_eq!(COUNTERS[1].read(report), Ok(144.0));
        assert!(COUNTERS[0].read("event syntax error: 'instructions:u'\n").is_err());
    }
}
