//! What the kernel shows of a thread, in words.
//!
//! Must not know: how it came that the kernel was asked.

#![forbid(unsafe_code)]

use std::fmt;
use std::time::Duration;

use crate::sys::directed::{self, Refusal};
use crate::sys::proc::{self, CpuTimes, InKernel, Word, syscall_name};

/// What the kernel showed, and why it had to be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KernelView {
    /// Where the thread is in the kernel.
    pub(crate) call: Option<InKernel>,
    /// See [`proc::ThreadStat`].
    pub(crate) state: Option<char>,
    /// The function of the kernel in which it waits.
    pub(crate) wchan: Option<Word>,
    pub(crate) cpu: Option<CpuTimes>,
    /// The thread has been waited for in vain, so long.
    pub(crate) waited: Option<Duration>,
    /// It holds the signal back.
    pub(crate) masked: bool,
    /// The signal could not be sent.
    pub(crate) refused: Option<Refusal>,
}

impl KernelView {
    pub(crate) const fn unknown() -> KernelView {
        KernelView { call: None, state: None, wchan: None, cpu: None, waited: None, masked: false, refused: None }
    }

    /// Asks everything.
    pub(crate) fn of(thread: i32) -> KernelView {
        KernelView {
            call: proc::syscall(thread),
            state: proc::stat(thread).map(|s| s.state),
            wchan: proc::wchan(thread),
            cpu: proc::cpu_times(thread),
            ..KernelView::unknown()
        }
    }

    /// Whether there is anything to say.
    pub(crate) fn is_empty(&self) -> bool {
        self.waited.is_none() && self.call.is_none_or(|c| c.nr < 0 && still(self.state).is_empty())
    }
}

/// Why a thread stands still in its own code.
fn still(state: Option<char>) -> &'static str {
    match state {
        Some('T') => "stopped",
        Some('t') => "stopped by a debugger",
        Some('D') => "waits for a page of memory",
        _ => "",
    }
}

/// The name of a system call, or its number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CallName(pub(crate) i64);

impl fmt::Display for CallName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match syscall_name(self.0) {
            Some(name) => f.write_str(name),
            None => write!(f, "system call {}", self.0),
        }
    }
}

/// `blocked in read`; `stopped by a debugger`; or `no answer within 20 ms (SIGURG is blocked): state S, in read, pipe_read, 1.204 s on the CPU`.
impl fmt::Display for KernelView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let call = self.call.filter(|c| c.nr >= 0);
        let Some(waited) = self.waited else {
            return match call {
                Some(call) => write!(f, "blocked in {}", CallName(call.nr)),
                None => f.write_str(still(self.state)),
            };
        };
        let signal = directed::signal().unwrap_or(0);
        match self.refused {
            None => write!(f, "no answer within {} ms", waited.as_millis().max(1))?,
            Some(Refusal::Off) => f.write_str("not asked, because CORO_STACK_SIGNAL is off")?,
            Some(Refusal::System(0)) => {
                write!(f, "not asked, because the program keeps putting handlers on signal {signal}")?;
            }
            Some(Refusal::System(e)) => write!(f, "not asked, because signal {signal} failed with error {e}")?,
            Some(Refusal::Gone) => f.write_str("the thread has ended")?,
        }
        if self.masked {
            write!(f, " (the thread blocks signal {signal})")?;
        }
        if let Some(state) = self.state {
            let words = match state {
                'R' => " running or runnable",
                'S' => " sleeping",
                'D' => " uninterruptible",
                'T' => " stopped",
                't' => " stopped by a debugger",
                _ => "",
            };
            write!(f, ": state {state}{words}")?;
        }
        if let Some(call) = call {
            write!(f, ", in {}", CallName(call.nr))?;
        }
        if let Some(wchan) = &self.wchan {
            write!(f, ", wchan {}", wchan.as_str())?;
        }
        if let Some(cpu) = self.cpu {
            write!(f, ", {:.3} s on the CPU", cpu.ran.as_secs_f64())?;
        }
        Ok(())
    }
}
