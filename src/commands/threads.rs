//! `threads [SECONDS]`: every thread of the process, what it costs and where it stands; those of this crate are marked.
//!
//! Invariants: two looks some time apart, in steps of [`STEP`] threads; nothing is sent to any of them. Where the system
//! does not tell something, the place stays empty.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::tables::LONGEST_NAME;
use super::text::{age, clean, counted, table};
use super::top::span;
use super::{Answer, Begun, When};
use crate::inspect::Census;
use crate::sys::{proc, threads, usage};

/// How long a look lasts, unless somebody says.
pub(super) const USUAL: Duration = Duration::from_millis(200);
/// Threads that are asked at a time.
const STEP: usize = 200;

/// One thread.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub(super) struct Thread {
    /// The kernel's number.
    pub(super) thread: i32,
    pub(super) name: String,
    /// `runs`, `sleeps`…
    pub(super) state: &'static str,
    /// CPU time since its start.
    pub(super) cpu: Duration,
    /// Part of one CPU during the look, 0 to 1; of one that began meanwhile since its start.
    pub(super) share: f64,
    /// It was started by this crate.
    pub(super) ours: bool,
    /// Of a worker: its number, and the task that runs there.
    pub(super) worker: Option<String>,
    /// The system call that it is in.
    pub(super) call: Option<String>,
    /// The function of the kernel in which it waits.
    pub(super) kernel: Option<String>,
}

/// Looks twice.
pub(super) struct Looking {
    span: Duration,
    begun: Instant,
    /// CPU times at the first look, and when that was; `None` until then.
    first: Option<HashMap<i32, (Duration, Instant)>>,
    /// The second look: those that are still to be asked.
    left: Option<Vec<i32>>,
    roles: HashMap<i32, String>,
    pub(super) found: Vec<Thread>,
}

impl Looking {
    pub(super) fn new(span: Duration) -> Looking {
        Looking { span, begun: Instant::now(), first: None, left: None, roles: HashMap::new(), found: Vec::new() }
    }

    /// Looks on. When to come back; `None` when all is found.
    pub(super) fn more(&mut self) -> Result<Option<When>, String> {
        let all = || threads::all().map_err(|error| format!("threads: {error}"));
        let Some(first) = &self.first else {
            let times = all()?.into_iter().filter_map(|tid| Some((tid, (cpu(tid)?, Instant::now()))));
            self.first = Some(times.collect());
            return Ok(Some(When::NotBefore(self.begun + self.span)));
        };
        if self.left.is_none() {
            self.roles = roles();
            self.left = Some(all()?);
        }
        let Some(left) = &mut self.left else { return Ok(None) };
        for tid in left.split_off(left.len().saturating_sub(STEP)) {
            self.found.extend(thread(tid, first.get(&tid).copied(), self.span, self.roles.remove(&tid)));
        }
        if !left.is_empty() {
            return Ok(Some(When::Now));
        }
        self.found.sort_by(|a, b| b.share.total_cmp(&a.share).then(a.thread.cmp(&b.thread)));
        Ok(None)
    }
}

/// In its own code and in the kernel.
fn cpu(tid: i32) -> Option<Duration> {
    let exact = proc::cpu_times(tid).map(|times| times.ran);
    exact.or_else(|| proc::stat(tid).map(|stat| stat.utime + stat.stime))
}

/// Who the workers are, by their threads.
fn roles() -> HashMap<i32, String> {
    let census = Census::new();
    let several = census.workers.iter().any(|w| w.runtime > 0);
    let role = |w: &crate::inspect::Busy| {
        let place = if several { format!("{}/{}", w.runtime, w.index) } else { w.index.to_string() };
        match w.current {
            Some((id, lasted)) => format!("worker {place}, runs #{id} for {}", age(lasted)),
            None => format!("worker {place}"),
        }
    };
    census.workers.iter().map(|w| (w.thread, role(w))).collect()
}

/// `None` if it has ended.
fn thread(tid: i32, before: Option<(Duration, Instant)>, span: Duration, worker: Option<String>) -> Option<Thread> {
    let stat = proc::stat(tid)?;
    let now = Instant::now();
    let cpu = cpu(tid)?;
    let share = match before {
        Some((then, at)) => cpu.saturating_sub(then).as_secs_f64() / now.duration_since(at).as_secs_f64().max(1e-9),
        None => cpu.as_secs_f64() / span.as_secs_f64(),
    };
    let state = match stat.state {
        'R' => "runs",
        'S' | 'I' => "sleeps",
        'D' => "blocked",
        'T' => "stopped",
        't' => "traced",
        _ => "ended",
    };
    let call = proc::syscall(tid).filter(|call| call.nr >= 0).map(|call| match proc::syscall_name(call.nr) {
        Some(name) => name.to_owned(),
        None => format!("system call {}", call.nr),
    });
    Some(Thread {
        thread: tid,
        name: threads::name(tid).unwrap_or_default(),
        state,
        cpu,
        share: share.min(1.0),
        ours: worker.is_some() || threads::is_own(tid),
        worker,
        call,
        kernel: proc::wchan(tid).map(|word| word.as_str().to_owned()),
    })
}

/// `threads [SECONDS]`
pub(super) fn threads(words: &[&str]) -> Begun {
    let looking = Looking::new(span("threads", words, USUAL)?);
    Ok(Box::new(Threads { looking, when: When::Now, table: None }))
}

struct Threads {
    looking: Looking,
    when: When,
    table: Option<Box<dyn Answer>>,
}

impl Answer for Threads {
    fn more(&mut self, out: &mut Vec<u8>) -> bool {
        if self.table.is_none() {
            match self.looking.more() {
                Ok(Some(when)) => {
                    self.when = when;
                    return true;
                }
                Ok(None) => self.table = Some(shown(&self.looking.found)),
                Err(error) => {
                    out.extend_from_slice(format!("{error}\n").as_bytes());
                    return false;
                }
            }
            self.when = When::Now;
        }
        self.table.as_mut().is_some_and(|table| table.more(out))
    }

    fn when(&self) -> When {
        self.when
    }
}

fn shown(all: &[Thread]) -> Box<dyn Answer> {
    let ours = all.iter().filter(|thread| thread.ours).count();
    let (user, system) = usage::cpu();
    let head = format!(
        "{}, {ours} of them coro's own; CPU {} in all\n",
        counted(all.len() as u64, "thread", "threads"),
        age(user + system)
    );
    let mut rows = vec![["name", "thread", "share", "CPU", "state", "what"].map(str::to_owned).to_vec()];
    for thread in all {
        let mut what = match (&thread.worker, thread.ours) {
            (Some(worker), _) => worker.clone(),
            (None, true) => "coro's own".to_owned(),
            (None, false) => String::new(),
        };
        let place = match (&thread.call, &thread.kernel) {
            (Some(call), Some(kernel)) => format!("in {call} ({kernel})"),
            (Some(place), None) | (None, Some(place)) => format!("in {place}"),
            (None, None) => String::new(),
        };
        if !what.is_empty() && !place.is_empty() {
            what.push_str("; ");
        }
        what.push_str(&place);
        rows.push(vec![
            clean(&thread.name, LONGEST_NAME),
            thread.thread.to_string(),
            format!("{:.0}%", thread.share * 100.0),
            age(thread.cpu),
            thread.state.to_owned(),
            what,
        ]);
    }
    table(&head, rows)
}
