//! What can be told while the program's allocator, or the loader, stands still: every worker with what it runs and the stack of
//! that, then the other tasks.
//!
//! Invariants: all memory is had before ([`Raw::prepared`]). Writing allocates and frees nothing, takes no lock that user code
//! could hold or wait for, opens nothing but `/proc`, and knows the images that were loaded by then. Names have no lines and no
//! inlined calls, since those cost memory to find.
//!
//! Must not know: why it is asked, where the text goes.

#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use super::capture::{Captured, Doing};
use super::condensed::{First, push_escaped};
use super::frames::{CUT, walker};
use super::line::TaskState;
use super::loaded;
use super::names::{FixedBuf, Names};
use super::row::word;
use super::running::{self, RunningCopy, Sample};
use super::status::running_now;
use super::walk::{End, MAX_FRAMES, Registers, StackBytes, Walker};
use crate::scheduler;
use crate::scheduler::shared::{Shared, worker_at};
use crate::sys::proc;

/// The longest line; what does not fit is cut.
const LINE: usize = 4096;
/// No more tasks than that are listed; the rest are counted.
const MOST: usize = 10_000;

/// See the module's head.
pub(super) struct Raw {
    walker: Walker,
    names: Names,
    captured: Captured,
    sample: Sample,
    addresses: Vec<usize>,
    line: Box<[u8; LINE]>,
}

impl Raw {
    /// Has all memory that it will need.
    pub(super) fn prepared() -> Raw {
        running::prepare();
        Raw {
            walker: walker(),
            names: Names::new(loaded::latest()),
            captured: Captured::with_room(),
            sample: Sample::with_room(),
            addresses: Vec::with_capacity(MAX_FRAMES),
            line: Box::new([0; LINE]),
        }
    }

    /// Reads the names of the images that are there now: milliseconds, which the first report needs otherwise.
    pub(super) fn read_names() {
        Names::new(loaded::latest()).prepare();
    }

    /// Writes it, a line at a time, until `out` says no.
    pub(super) fn write(&mut self, mut out: impl FnMut(&[u8]) -> bool) {
        for place in 0..=u16::MAX {
            let Some(w) = worker_at(place) else { break };
            if !w.gone.load(Ordering::Relaxed) && !self.worker(w, &mut out) {
                return;
            }
        }
        let (mut listed, mut more) = (0, 0usize);
        for cell in scheduler::all_cells() {
            if cell.state.snapshot().id() == 0 {
                continue;
            }
            if listed == MOST {
                more += 1;
            } else if self.captured.capture(cell, None) && !matches!(self.captured.doing, Doing::Running(_)) {
                listed += 1;
                if !self.task(&mut out) {
                    return;
                }
            }
        }
        if more > 0 {
            let mut line = FixedBuf::new(&mut self.line[..]);
            _ = writeln!(line, "coro: {more} more tasks");
            _ = out(line.as_bytes());
        }
    }

    /// `coro: worker 0 thread 4711 runs #17 for 3.210s, state R in read [app::culprit+0x1f] [app::main+0x80]`
    fn worker(&mut self, w: &'static Shared, out: &mut impl FnMut(&[u8]) -> bool) -> bool {
        let thread = w.thread.load(Ordering::Relaxed);
        let mut line = FixedBuf::new(&mut self.line[..LINE - 1]);
        _ = write!(line, "coro: worker {} thread {thread}", w.ordinal());
        let now = running_now(w);
        _ = match now {
            Some((_, id, lasted)) => write!(line, " runs #{id} for {:.3}s", lasted.as_secs_f64()),
            None => write!(line, " runs no task"),
        };
        if let Some(stat) = proc::stat(thread) {
            _ = write!(line, ", state {}", stat.state);
        }
        if let Some(call) = proc::syscall(thread).filter(|call| call.nr >= 0) {
            _ = match proc::syscall_name(call.nr) {
                Some(name) => write!(line, " in {name}"),
                None => write!(line, " in system call {}", call.nr),
            };
        }
        if let Some((cell, id, _)) = now {
            let Raw { walker, addresses, sample, .. } = self;
            let mut whole = |r: &Registers, stack: &StackBytes<'_>| {
                addresses.clear();
                walker.walk(r, stack, addresses) == End::Complete
            };
            match running::copy_running(w, cell, id, sample, &mut whole) {
                RunningCopy::Copied | RunningCopy::Silent => {}
                RunningCopy::Elsewhere | RunningCopy::Unsupported => sample.registers = None,
            }
            if sample.registers.is_some() {
                // The last walk was that of the sample.
                let first = if sample.after_call { First::ResumePoint } else { First::Instruction };
                line.push_str(" ");
                self.names.write_stack(&self.addresses, first, &mut line);
                line.push_str(if sample.whole { "" } else { CUT });
            } else if let Some(waited) = sample.kernel.waited {
                _ = write!(line, ", no answer within {} ms", waited.as_millis().max(1));
            }
        }
        ended(line.as_bytes().len(), &mut self.line, out)
    }

    /// `coro: #18 parked 3.210s "db writer" read [app::fetch+0x1f] [app::serve+0x80]`
    fn task(&mut self, out: &mut impl FnMut(&[u8]) -> bool) -> bool {
        let c = &self.captured;
        let state = c.state();
        let mut line = FixedBuf::new(&mut self.line[..LINE - 1]);
        _ = write!(line, "coro: #{} {} {:.3}s", c.id, word(state), c.age().as_secs_f64());
        if let Some(name) = c.name() {
            line.push_str(" \"");
            push_escaped(name, &mut line);
            line.push_str("\"");
        }
        if state == TaskState::Parked {
            line.push_str(" ");
            line.push_str(c.wait.kind.word());
        }
        if let Some(registers) = &c.registers {
            self.addresses.clear();
            let end = self.walker.walk(registers, &c.stack(), &mut self.addresses);
            line.push_str(" ");
            self.names.write_stack(&self.addresses, First::ResumePoint, &mut line);
            line.push_str(if end == End::Complete { "" } else { CUT });
        } else if let Some(site) = c.site {
            line.push_str(" spawned at ");
            push_escaped(site.file(), &mut line);
            _ = write!(line, ":{}", site.line());
        }
        ended(line.as_bytes().len(), &mut self.line, out)
    }
}

/// Hands the first `len` bytes on, with a line's end.
fn ended(len: usize, line: &mut [u8; LINE], out: &mut impl FnMut(&[u8]) -> bool) -> bool {
    line[len] = b'\n';
    out(&line[..=len])
}
