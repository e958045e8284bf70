//! One run: a fresh process, or a server and a load beside it.
//!
//! Whatever is started here is waited for here, also when it hangs: a process left over would disturb every later run.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::{self, BufRead, BufReader, Read};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use super::programs::Programs;
use crate::load::cpu_time_of;
use crate::results::Verdict;

/// How long any one process may take.
const LIMIT: Duration = Duration::from_secs(120);

/// How long a load is measured, and how long it runs before: measured, warm.
const LOAD_MS: (u64, u64) = (2000, 400);
const QUICK_LOAD_MS: (u64, u64) = (300, 100);

/// What a run is made with.
pub(super) struct Run<'a> {
    pub(super) programs: &'a Programs,
    pub(super) runtime: &'static str,
    pub(super) workers: usize,
    /// For what has one worker, and for a load beside it.
    pub(super) cpus: (usize, Option<usize>),
    pub(super) quick: bool,
}

type Metrics = BTreeMap<String, f64>;

fn failed(what: &str, error: impl Display) -> Verdict {
    Verdict::Failed(format!("{what}: {error}"))
}

/// The process and its threads run on one CPU only.
fn pin(command: &mut Command, cpu: usize) {
    let mut set = {
        // SAFETY: all zeros is an empty set.
        let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: the number came out of such a set.
        unsafe { libc::CPU_SET(cpu, &mut set) };
        set
    };
    let affinity = move || {
        // SAFETY: the call reads the set only.
        match unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw mut set) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: between fork and exec it makes one system call, which allocates nothing and takes no lock.
    unsafe { command.pre_exec(affinity) };
}

/// Ends with the value, whatever becomes of the rest of a run.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself, which is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits with a limit. What it prints has to fit into a pipe, as a handful of lines does.
fn finish(mut command: Command) -> io::Result<Output> {
    let mut child = Server(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?);
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.0.try_wait()? {
            break status;
        }
        if start.elapsed() > LIMIT {
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("not over after {} s", LIMIT.as_secs())));
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let mut output = Output { status, stdout: Vec::new(), stderr: Vec::new() };
    if let Some(mut pipe) = child.0.stdout.take() {
        pipe.read_to_end(&mut output.stdout)?;
    }
    if let Some(mut pipe) = child.0.stderr.take() {
        pipe.read_to_end(&mut output.stderr)?;
    }
    Ok(output)
}

/// What a process says of its failure, in a line, and how it ended. Where a panic was is no news to who reads results.
fn words(status: ExitStatus, stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let telling = |line: &&str| !line.is_empty() && !line.starts_with("thread '");
    let line = text.lines().map(str::trim).find(telling).unwrap_or("it said nothing");
    let short: String = line.chars().take(200).collect();
    format!("{short} ({status})")
}

/// Values by metric: the last two words of each line.
fn parse(stdout: &[u8]) -> Metrics {
    let text = String::from_utf8_lossy(stdout);
    let value = |line: &str| {
        let mut words = line.split(' ').rev();
        let value = words.next()?.parse::<f64>().ok()?;
        Some((words.next()?.to_owned(), value))
    };
    text.lines().filter_map(value).collect()
}

fn measured(output: io::Result<Output>) -> Verdict {
    match output {
        Err(error) => failed("the process", error),
        Ok(output) if output.status.code() == Some(3) => {
            Verdict::Unsupported(String::from_utf8_lossy(&output.stderr).trim().to_owned())
        }
        Ok(output) if !output.status.success() => Verdict::Failed(words(output.status, &output.stderr)),
        Ok(output) => Verdict::Measured(parse(&output.stdout)),
    }
}

impl Run<'_> {
    fn command(&self) -> Option<Command> {
        let mut command = self.programs.command(self.runtime)?;
        command.arg(format!("{}-{}", self.runtime, self.workers));
        if self.workers == 1 {
            pin(&mut command, self.cpus.0);
        }
        Some(command)
    }

    /// A workload that is one process.
    pub(super) fn process(&self, words: &[&str], quick: &[&str]) -> Verdict {
        let Some(mut command) = self.command() else { return failed("the program", "missing") };
        // The first of a key's values is taken.
        command.arg(words[0]).args(quick.iter().filter(|_| self.quick)).args(&words[1..]);
        measured(finish(command))
    }

    /// A server that can be connected to.
    fn serve(&self, workload: &str) -> Result<(Server, u16), Verdict> {
        let Some(mut command) = self.command() else { return Err(failed("the program", "missing")) };
        // Free a moment ago, and the kernel gives out the same one again only after all others.
        let port =
            TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).map_err(|e| failed("a port", e))?.port();
        command.arg(workload).arg(format!("port={port}"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut server = Server(command.spawn().map_err(|e| failed("the server", e))?);
        let mut line = String::new();
        if let Some(pipe) = server.0.stdout.take() {
            BufReader::new(pipe).read_line(&mut line).map_err(|e| failed("the server", e))?;
        }
        if line.trim() == "READY" { Ok((server, port)) } else { Err(failed("the server", "it did not begin to serve")) }
    }

    fn load_command(&self, program: &std::path::Path) -> Command {
        let mut command = Command::new(program);
        // A server with two workers uses all CPUs that there are, and so does the load on it.
        if let (1, Some(cpu)) = (self.workers, self.cpus.1) {
            pin(&mut command, cpu);
        }
        command
    }

    /// Our load on an echo server.
    pub(super) fn echo(&self, connections: usize) -> Verdict {
        let (server, port) = match self.serve("echo-server") {
            Ok(started) => started,
            Err(verdict) => return verdict,
        };
        let own = match std::env::current_exe() {
            Ok(own) => own,
            Err(error) => return failed("this program", error),
        };
        let (ms, warm) = if self.quick { QUICK_LOAD_MS } else { LOAD_MS };
        let mut load = self.load_command(&own);
        load.arg("load").args([
            format!("port={port}"),
            format!("conns={connections}"),
            format!("pid={}", server.0.id()),
            format!("ms={ms}"),
            format!("warm={warm}"),
        ]);
        let counted = self.programs.counted();
        if !counted.is_empty() {
            load.arg(format!("count={}", counted.join(",")));
        }
        measured(finish(load))
    }

    /// wrk on a web server, first for a second that is not measured.
    pub(super) fn http(&self, connections: usize) -> Verdict {
        let (server, port) = match self.serve("http-server") {
            Ok(started) => started,
            Err(verdict) => return verdict,
        };
        let wrk = |seconds: u64| {
            let mut load = self.load_command("wrk".as_ref());
            load.args(["-t1", "--latency"]).arg(format!("-c{connections}")).arg(format!("-d{seconds}s"));
            load.arg(format!("http://127.0.0.1:{port}/"));
            finish(load)
        };
        let cpu = || cpu_time_of(server.0.id() as i32);
        let run = || -> io::Result<(Output, Duration)> {
            if !self.quick {
                wrk(1)?;
            }
            let before = cpu()?;
            let output = wrk(if self.quick { 1 } else { 3 })?;
            Ok((output, cpu()? - before))
        };
        match run() {
            Err(error) => failed("wrk", error),
            Ok((output, _)) if !output.status.success() => failed("wrk", words(output.status, &output.stderr)),
            Ok((output, used)) => wrk_said(&String::from_utf8_lossy(&output.stdout), used),
        }
    }
}

/// Reads wrk's report.
fn wrk_said(text: &str, used: Duration) -> Verdict {
    // Answers that are none make a server fast.
    if let Some(line) = text.lines().find(|line| line.contains("Non-2xx") || line.contains("Socket errors")) {
        return failed("wrk", line.trim());
    }
    let after = |name: &str| text.lines().find_map(|line| line.trim().strip_prefix(name).map(str::trim));
    let requests = text.lines().find_map(|line| line.trim().split_once(" requests in ")?.0.parse::<f64>().ok());
    let values = (|| {
        let mut metrics = Metrics::new();
        metrics.insert("cpu_us_per_req".to_owned(), used.as_secs_f64() * 1e6 / requests?);
        metrics.insert("p50_us".to_owned(), microseconds(after("50%")?)?);
        metrics.insert("p99_us".to_owned(), microseconds(after("99%")?)?);
        metrics.insert("req_per_s".to_owned(), after("Requests/sec:")?.parse().ok()?);
        Some(metrics)
    })();
    values.map_or_else(|| failed("wrk", "its report was not understood"), Verdict::Measured)
}

/// A time as wrk writes it: `12.3us`, `4.56ms`, `1.02s`.
fn microseconds(text: &str) -> Option<f64> {
    let units = [("us", 1.0), ("ms", 1e3), ("s", 1e6)];
    units.iter().find_map(|(unit, factor)| Some(text.strip_suffix(unit)?.parse::<f64>().ok()? * factor))
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use super::{finish, measured, parse, wrk_said};
    use crate::results::Verdict;

    const REPORT: &str = "Running 3s test @ http://127.0.0.1:1/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   593.25us  113.21us   4.01ms   86.32%
  Latency Distribution
     50%  570.00us
     75%  640.00us
     90%  721.00us
     99%    1.02ms
  250000 requests in 3.00s, 30.00MB read
Requests/sec:  83333.25
Transfer/sec:     10.00MB
";

    #[test]
    fn a_report_of_wrk_is_read() {
        let Verdict::Measured(m) = wrk_said(REPORT, Duration::from_secs(2)) else { panic!("not understood") };
        assert_eq!((m["cpu_us_per_req"], m["p50_us"], m["p99_us"], m["req_per_s"]), (8.0, 570.0, 1020.0, 83333.25));
        let bad = format!("{REPORT}  Non-2xx or 3xx responses: 250000\n");
        assert!(matches!(wrk_said(&bad, Duration::from_secs(2)), Verdict::Failed(_)), "errors were taken for answers");
        assert!(matches!(wrk_said("", Duration::from_secs(2)), Verdict::Failed(_)));
    }

    #[test]
    fn only_lines_with_a_number_are_values() {
        let found = parse(b"READY\nyield.2 coro-1 ns_per_yield 9.125\nsome words\np99_us 3\n");
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [("ns_per_yield".into(), 9.125), ("p99_us".into(), 3.0)]);
    }

    #[test]
    fn the_exit_code_tells_what_is_missing_from_what_broke() {
        let shell = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            measured(finish(command))
        };
        assert!(matches!(shell("echo none >&2; exit 3"), Verdict::Unsupported(why) if why == "none"));
        let panic = "echo \"thread 'a' (1) panicked at /b/c.rs:1:2:\" >&2; echo oh >&2; exit 101";
        assert!(matches!(shell(panic), Verdict::Failed(why) if why.starts_with("oh (")));
        assert!(matches!(shell("kill -9 $$"), Verdict::Failed(_)));
        assert!(matches!(shell("echo a b c 1"), Verdict::Measured(m) if m["c"] == 1.0));
    }
}
