//! What is compared: the cases, what is measured in each, what it is called for people, and what is wanted of coro.
//!
//! Sizes that are not named here are the defaults of the programs, which agree. Must not know: how anything is run.

use super::runtimes::{BARE, Kind, Runtime};

pub(crate) struct Case {
    /// A workload, or one of its forms after a dot.
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) group: Group,
    pub(crate) work: Work,
    pub(crate) metrics: &'static [Metric],
    /// With one worker, with two, or with both. What is wanted, is wanted with the first of them.
    pub(crate) workers: &'static [usize],
}

/// A table each.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Group {
    Tasks,
    Messages,
    TimeAndMemory,
    Servers,
}

pub(crate) const GROUPS: [(Group, &str); 4] = [
    (Group::Tasks, "Tasks: yields and spawns"),
    (Group::Messages, "Channels and locks"),
    (Group::TimeAndMemory, "Timers and memory"),
    (Group::Servers, "Servers"),
];

pub(crate) enum Work {
    /// One process: its workload, its keys, and the keys that make it short instead.
    Process { words: &'static [&'static str], quick: &'static [&'static str] },
    /// An echo server, and a load with so many connections.
    Echo(usize),
    /// A web server, and wrk with so many connections.
    Http(usize),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Better {
    Less,
    More,
    /// Nobody is better for it: it explains another figure.
    Neither,
}

/// Whom ours is held against.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Against {
    Nobody,
    /// The best of all peers.
    Best,
    /// The best of those whose tasks may go to another thread.
    BestShared,
    This(&'static str),
}

/// What is wanted of ours.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Wanted {
    Nothing,
    /// So many times what the one takes that it is held against, or better.
    Times(f64),
    /// In the metric's unit, or better.
    Value(f64),
}

#[derive(Clone, Copy)]
pub(crate) struct Metric {
    pub(crate) name: &'static str,
    /// Unit, and what of, where a case has several.
    pub(crate) unit: &'static str,
    pub(crate) better: Better,
    pub(crate) against: Against,
    pub(crate) wanted: Wanted,
}

impl Metric {
    const fn wanted(self, wanted: Wanted) -> Metric {
        Metric { wanted, ..self }
    }

    const fn against(self, name: &'static str) -> Metric {
        Metric { against: Against::This(name), ..self }
    }
}

const fn less(name: &'static str, unit: &'static str) -> Metric {
    Metric { name, unit, better: Better::Less, against: Against::Best, wanted: Wanted::Nothing }
}

const fn more(name: &'static str, unit: &'static str) -> Metric {
    Metric { better: Better::More, ..less(name, unit) }
}

const fn told(name: &'static str, unit: &'static str) -> Metric {
    Metric { better: Better::Neither, against: Against::Nobody, ..less(name, unit) }
}

/// So many times what that one takes.
const fn times(factor: f64, name: &'static str, metric: Metric) -> Metric {
    metric.against(name).wanted(Wanted::Times(factor))
}

/// So many times what the best takes.
const fn best(factor: f64, metric: Metric) -> Metric {
    metric.wanted(Wanted::Times(factor))
}

const fn best_shared(factor: f64, metric: Metric) -> Metric {
    Metric { against: Against::BestShared, ..metric }.wanted(Wanted::Times(factor))
}

const fn at_most(value: f64, metric: Metric) -> Metric {
    metric.wanted(Wanted::Value(value))
}

const BOTH: &[usize] = &[1, 2];
/// Memory does not depend on it, and a server with two workers shares its CPUs with the load.
const ONE: &[usize] = &[1];
const TWO: &[usize] = &[2];

const PER_YIELD: Metric = less("ns_per_yield", "ns");
const PER_TASK: Metric = less("ns_per_task", "ns");
const PER_ROUND_TRIP: Metric = less("ns_per_round_trip", "ns");
/// A worker that spins for a message would be fast, and never idle.
const IDLE: Metric = at_most(1.0, Metric { against: Against::Nobody, ..less("idle_cpu_pct", "% of a CPU, idle") });
const PER_MESSAGE: Metric = less("ns_per_msg", "ns");
const CPU: Metric = less("cpu_us_per_req", "µs of CPU");
const P99: Metric = less("p99_us", "µs, p99");
const P999: Metric = less("p999_us", "µs, p99.9");
const REQUESTS: Metric = told("req_per_s", "requests/s");
const USER: Metric = told("user_us_per_req", "µs of CPU, user");
const INSTRUCTIONS: Metric = told("user_instructions_per_req", "user instructions");
const SYSTEM_CALLS: Metric = told("syscalls_per_req", "system calls");

/// 4.8 KiB for a stack of its own.
const MEMORY: &[Metric] = &[
    at_most(4.8 * 1024.0, less("bytes_per_task", "bytes")),
    times(1.0, "go", less("create_ns_per_task", "ns to start")),
];
/// Requests per second say how much the load can ask for, and CPU time what it costs: so that is held against the loop.
const ECHO: &[Metric] =
    &[times(1.02, BARE, CPU), USER, INSTRUCTIONS, SYSTEM_CALLS, P99.against(BARE), P999.against(BARE), REQUESTS];
const ECHO_MANY: &[Metric] =
    &[times(1.05, BARE, CPU), USER, INSTRUCTIONS, SYSTEM_CALLS, times(1.0, BARE, P99), P999.against(BARE), REQUESTS];
const HTTP: &[Metric] = &[CPU, P99, best(1.0, more("req_per_s", "requests/s"))];

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "yield.2",
        what: "yield, 2 tasks",
        group: Group::Tasks,
        work: Work::Process { words: &["yield", "n=2"], quick: &["total=500000"] },
        metrics: &[times(0.7, "glommio", PER_YIELD)],
        workers: BOTH,
    },
    Case {
        name: "yield.100",
        what: "yield, 100 tasks",
        group: Group::Tasks,
        work: Work::Process { words: &["yield", "n=100"], quick: &["total=500000"] },
        metrics: &[times(0.7, "glommio", PER_YIELD)],
        workers: BOTH,
    },
    Case {
        name: "yield.10000",
        what: "yield, 10,000 tasks",
        group: Group::Tasks,
        work: Work::Process { words: &["yield", "n=10000"], quick: &["total=500000"] },
        metrics: &[times(0.7, "glommio", PER_YIELD)],
        workers: BOTH,
    },
    Case {
        name: "spawn.waves",
        what: "spawn and join, waves of 1,000",
        group: Group::Tasks,
        work: Work::Process { words: &["spawn", "mode=waves"], quick: &["total=100000"] },
        metrics: &[times(0.5, "smol", PER_TASK)],
        workers: BOTH,
    },
    Case {
        name: "spawn.burst",
        what: "spawn 1,000,000, then join all",
        group: Group::Tasks,
        work: Work::Process { words: &["spawn", "mode=burst"], quick: &["total=20000"] },
        metrics: &[times(0.6, "smol", PER_TASK)],
        workers: BOTH,
    },
    Case {
        name: "spawn.local",
        what: "spawn and join tasks that stay on their thread",
        group: Group::Tasks,
        work: Work::Process { words: &["spawn", "mode=local"], quick: &["total=100000"] },
        metrics: &[times(1.2, "monoio", PER_TASK)],
        workers: ONE,
    },
    Case {
        name: "pingpong.bounded",
        what: "round trip, bounded(1) channels",
        group: Group::Messages,
        work: Work::Process { words: &["pingpong", "chan=b"], quick: &["rounds=100000"] },
        metrics: &[best(0.7, PER_ROUND_TRIP)],
        workers: BOTH,
    },
    Case {
        name: "pingpong.unbounded",
        what: "round trip, unbounded channels",
        group: Group::Messages,
        work: Work::Process { words: &["pingpong", "chan=u"], quick: &["rounds=100000"] },
        metrics: &[best(0.7, PER_ROUND_TRIP)],
        workers: BOTH,
    },
    Case {
        name: "pingpong.cross",
        what: "round trip between two workers, bounded(1) channels",
        group: Group::Messages,
        work: Work::Process {
            words: &["pingpong", "chan=b", "place=cross", "idle=3000"],
            quick: &["rounds=5000", "idle=300"],
        },
        metrics: &[best(0.5, PER_ROUND_TRIP), IDLE],
        workers: TWO,
    },
    Case {
        name: "fanin.bounded",
        what: "message from 16 producers, bounded(1024)",
        group: Group::Messages,
        work: Work::Process { words: &["fanin", "chan=b"], quick: &["total=400000"] },
        metrics: &[best_shared(0.8, PER_MESSAGE)],
        workers: BOTH,
    },
    Case {
        name: "fanin.unbounded",
        what: "message from 16 producers, unbounded",
        group: Group::Messages,
        work: Work::Process { words: &["fanin", "chan=u"], quick: &["total=400000"] },
        metrics: &[best_shared(0.8, PER_MESSAGE)],
        workers: BOTH,
    },
    Case {
        name: "mutex",
        what: "lock and unlock, 100 tasks at one mutex",
        group: Group::Messages,
        work: Work::Process { words: &["mutex"], quick: &["iters=5000"] },
        metrics: &[times(0.8, "go", less("ns_per_lock", "ns"))],
        workers: BOTH,
    },
    Case {
        name: "timers",
        what: "timer, 100,000 at once",
        group: Group::TimeAndMemory,
        work: Work::Process { words: &["timers"], quick: &["conc=5000", "per=2"] },
        metrics: &[
            times(1.0, "tokio", less("cpu_ns_per_timer", "ns of CPU")),
            at_most(100.0, less("late_p50_us", "µs late, p50")),
            at_most(1000.0, less("late_p99_us", "µs late, p99")),
        ],
        workers: BOTH,
    },
    Case {
        name: "memory.10000",
        what: "parked task, 10,000 of them",
        group: Group::TimeAndMemory,
        work: Work::Process { words: &["mem", "n=10000"], quick: &["n=5000"] },
        metrics: MEMORY,
        workers: ONE,
    },
    Case {
        name: "memory.100000",
        what: "parked task, 100,000 of them",
        group: Group::TimeAndMemory,
        work: Work::Process { words: &["mem", "n=100000"], quick: &["n=50000"] },
        metrics: MEMORY,
        workers: ONE,
    },
    Case {
        name: "echo.100",
        what: "TCP echo, 64 bytes, 100 connections",
        group: Group::Servers,
        work: Work::Echo(100),
        metrics: ECHO,
        workers: ONE,
    },
    Case {
        name: "echo.1000",
        what: "TCP echo, 1,000 connections",
        group: Group::Servers,
        work: Work::Echo(1000),
        metrics: ECHO,
        workers: ONE,
    },
    Case {
        name: "echo.10000",
        what: "TCP echo, 10,000 connections",
        group: Group::Servers,
        work: Work::Echo(10_000),
        metrics: ECHO_MANY,
        workers: ONE,
    },
    Case {
        name: "echo.shared",
        what: "TCP echo, 100 connections, CPUs shared",
        group: Group::Servers,
        work: Work::Echo(100),
        metrics: &[best(1.0, more("req_per_s", "requests/s")), CPU, P99, P999],
        workers: TWO,
    },
    Case {
        name: "http.64",
        what: "HTTP/1.1 plaintext, 64 connections",
        group: Group::Servers,
        work: Work::Http(64),
        metrics: HTTP,
        workers: ONE,
    },
    Case {
        name: "http.512",
        what: "HTTP/1.1 plaintext, 512 connections",
        group: Group::Servers,
        work: Work::Http(512),
        metrics: HTTP,
        workers: ONE,
    },
];

/// The workloads that the command line knows: the cases' names up to the dot.
pub(crate) fn workloads() -> Vec<&'static str> {
    let mut all: Vec<_> = CASES.iter().map(Case::workload).collect();
    all.dedup();
    all
}

impl Case {
    pub(crate) fn workload(&self) -> &'static str {
        self.name.split('.').next().unwrap_or(self.name)
    }

    /// Whether this runtime has anything to do here. Whatever else it lacks, its program says.
    pub(crate) fn takes(&self, runtime: &Runtime, workers: usize) -> bool {
        let serves = matches!(self.work, Work::Echo(_) | Work::Http(_));
        match runtime.kind {
            Kind::Ours | Kind::Shared => true,
            // With two workers there is a runtime on each of two threads, and these have nothing in common.
            Kind::Local => workers == 1 || serves || self.workers == TWO,
            Kind::Web => matches!(self.work, Work::Http(_)),
            // Its tasks have one thread, too, and cannot be reached from another.
            Kind::Limit => workers == 1 || serves,
        }
    }

    /// Whom ours is held against: with another number of workers than the first, the best of those that take part.
    pub(crate) fn against(&self, metric: &Metric, workers: usize) -> Against {
        match metric.against {
            Against::This(_) | Against::BestShared if self.workers.first() != Some(&workers) => Against::Best,
            against => against,
        }
    }

    /// What is wanted of one of its metrics, with so many workers.
    pub(crate) fn wanted(&self, metric: &Metric, workers: usize) -> Wanted {
        if self.workers.first() == Some(&workers) { metric.wanted } else { Wanted::Nothing }
    }
}

#[cfg(test)]
mod tests {
    use super::CASES;
    use crate::run::runtimes::find;

    #[test]
    fn web_servers_take_part_in_http_alone() {
        for name in ["hyper", "minihttp"] {
            let web = find(name).unwrap();
            let taken: Vec<_> = CASES.iter().filter(|case| case.takes(web, 1)).map(|case| case.name).collect();
            assert_eq!(taken, ["http.64", "http.512"], "{name}");
        }
    }
}
