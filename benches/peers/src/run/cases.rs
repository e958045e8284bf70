//! What is compared: the cases, what is measured in each, and what it is called for people.
//!
//! Sizes that are not named here are the defaults of the programs, which agree. Must not know: how anything is run.

/// The runtimes, in the order in which each round runs them.
pub(crate) const RUNTIMES: [(&str, &str); 5] =
    [("coro", "coro"), ("tokio", "tokio"), ("may", "may"), ("smol", "smol"), ("go", "Go")];

/// The runtime that the others are compared with.
pub(crate) const OURS: &str = "coro";

pub(crate) struct Case {
    /// A workload, or one of its forms after a dot.
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) work: Work,
    pub(crate) metrics: &'static [Metric],
    /// With one worker, with two, or with both.
    pub(crate) workers: &'static [usize],
}

pub(crate) enum Work {
    /// One process: its workload, its keys, and the keys that make it short instead.
    Process { words: &'static [&'static str], quick: &'static [&'static str] },
    /// An echo server, and a load with so many connections.
    Echo(usize),
    /// A web server, and wrk with so many connections.
    Http(usize),
}

pub(crate) struct Metric {
    pub(crate) name: &'static str,
    /// Unit, and what of, where a case has several.
    pub(crate) unit: &'static str,
    /// Less is better, and the best peer is looked for; of the others more is better, and they are only told.
    pub(crate) ranked: bool,
}

const fn less(name: &'static str, unit: &'static str) -> Metric {
    Metric { name, unit, ranked: true }
}

const fn told(name: &'static str, unit: &'static str) -> Metric {
    Metric { name, unit, ranked: false }
}

const BOTH: &[usize] = &[1, 2];
/// Memory does not depend on it, and a server with two workers shares its CPUs with the load.
const ONE: &[usize] = &[1];
const YIELD: &[Metric] = &[less("ns_per_yield", "ns")];
const SPAWN: &[Metric] = &[less("ns_per_task", "ns")];
const PING_PONG: &[Metric] = &[less("ns_per_round_trip", "ns")];
const FAN_IN: &[Metric] = &[less("ns_per_msg", "ns")];
const MEMORY: &[Metric] = &[less("bytes_per_task", "bytes"), less("create_ns_per_task", "ns to start")];
const SERVER: &[Metric] =
    &[less("cpu_us_per_req", "µs of CPU"), less("p99_us", "µs, p99"), told("req_per_s", "requests/s")];

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "yield.2",
        what: "yield, 2 tasks",
        work: Work::Process { words: &["yield", "n=2"], quick: &["total=500000"] },
        metrics: YIELD,
        workers: BOTH,
    },
    Case {
        name: "yield.100",
        what: "yield, 100 tasks",
        work: Work::Process { words: &["yield", "n=100"], quick: &["total=500000"] },
        metrics: YIELD,
        workers: BOTH,
    },
    Case {
        name: "yield.10000",
        what: "yield, 10,000 tasks",
        work: Work::Process { words: &["yield", "n=10000"], quick: &["total=500000"] },
        metrics: YIELD,
        workers: BOTH,
    },
    Case {
        name: "spawn.waves",
        what: "spawn and join, waves of 1,000",
        work: Work::Process { words: &["spawn", "mode=waves"], quick: &["total=100000"] },
        metrics: SPAWN,
        workers: BOTH,
    },
    Case {
        name: "spawn.burst",
        what: "spawn 1,000,000, then join all",
        work: Work::Process { words: &["spawn", "mode=burst"], quick: &["total=20000"] },
        metrics: SPAWN,
        workers: BOTH,
    },
    Case {
        name: "pingpong.bounded",
        what: "round trip, bounded(1) channels",
        work: Work::Process { words: &["pingpong", "chan=b"], quick: &["rounds=100000"] },
        metrics: PING_PONG,
        workers: BOTH,
    },
    Case {
        name: "pingpong.unbounded",
        what: "round trip, unbounded channels",
        work: Work::Process { words: &["pingpong", "chan=u"], quick: &["rounds=100000"] },
        metrics: PING_PONG,
        workers: BOTH,
    },
    Case {
        name: "fanin.bounded",
        what: "message from 16 producers, bounded(1024)",
        work: Work::Process { words: &["fanin", "chan=b"], quick: &["total=400000"] },
        metrics: FAN_IN,
        workers: BOTH,
    },
    Case {
        name: "fanin.unbounded",
        what: "message from 16 producers, unbounded",
        work: Work::Process { words: &["fanin", "chan=u"], quick: &["total=400000"] },
        metrics: FAN_IN,
        workers: BOTH,
    },
    Case {
        name: "mutex",
        what: "lock and unlock, 100 tasks at one mutex",
        work: Work::Process { words: &["mutex"], quick: &["iters=5000"] },
        metrics: &[less("ns_per_lock", "ns")],
        workers: BOTH,
    },
    Case {
        name: "timers",
        what: "timer, 100,000 at once",
        work: Work::Process { words: &["timers"], quick: &["conc=5000", "per=2"] },
        metrics: &[
            less("cpu_ns_per_timer", "ns of CPU"),
            less("late_p50_us", "µs late, p50"),
            less("late_p99_us", "µs late, p99"),
        ],
        workers: BOTH,
    },
    Case {
        name: "memory.10000",
        what: "parked task, 10,000 of them",
        work: Work::Process { words: &["mem", "n=10000"], quick: &["n=5000"] },
        metrics: MEMORY,
        workers: ONE,
    },
    Case {
        name: "memory.100000",
        what: "parked task, 100,000 of them",
        work: Work::Process { words: &["mem", "n=100000"], quick: &["n=50000"] },
        metrics: MEMORY,
        workers: ONE,
    },
    Case {
        name: "echo",
        what: "TCP echo, 64 bytes, 100 connections",
        work: Work::Echo(100),
        metrics: SERVER,
        workers: ONE,
    },
    Case {
        name: "http",
        what: "HTTP/1.1 plaintext, 64 connections",
        work: Work::Http(64),
        metrics: SERVER,
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
}
