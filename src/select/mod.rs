//! Waiting for the first of several things: messages, room for one, points in time, ends of tasks, readiness, futures.
//!
//! The macro [`coro::select!`](macro@crate::select) is the usual way. What it expands to is here, for choices whose arms are
//! made while the program runs: each function makes an arm, [`wait`] waits for the first of them that can go on and returns its
//! number, and that arm has the result.
//!
//! ```
//! use coro::select;
//! use coro::sync::mpsc;
//! use std::time::Duration;
//!
//! coro::run(|| {
//!     let (senders, receivers): (Vec<_>, Vec<_>) = (0..5).map(|_| mpsc::channel::<u32>()).unzip();
//!     senders[3].send(7).unwrap();
//!     let mut arms: Vec<_> = receivers.iter().map(select::recv).collect();
//!     let mut limit = select::after(Duration::from_secs(5));
//!     let mut all: Vec<&mut dyn select::Arm> = arms.iter_mut().map(|arm| arm as _).collect();
//!     all.push(&mut limit);
//!     let first = select::wait(&mut all);
//!     assert_eq!((first, arms[first].take()), (3, Ok(7)));
//! });
//! ```
//!
//! # What is kept
//! * **One arm**: of everything that is waited for, one thing is done, that of the arm whose number is returned. A message is
//!   received by that arm or stays where it is; one that was not sent is still in its arm.
//! * **Fairness**: of several that can go on at once any may be first; the choice is random.
//! * **Nothing is lost**: an arm whose result nobody has taken keeps it, and can go on at once in the next wait that it is in.
//! * **Nothing is left**: when `wait` returns or unwinds, no channel, task, timer or socket knows of it any more.
//!
//! # Cancellation
//! A choice is a wait like any other: it unwinds if an interrupt is due, unless a message was just handed over, which is
//! returned; the interrupt then comes at the next wait.
//!
//! # What views show
//! `select over 3: recv channel "jobs" src/a.rs:7 (2 senders; nothing sent yet) | join #5 | read fd 9 … for at most 1.2s more`;
//! a deadlock is never certain over a choice.
//!
//! Must not know: how channels keep their lines, or how readiness is found.

mod arms;
mod macros;

use std::cell::Cell;
use std::time::{Duration, Instant};

pub use arms::{
    AcceptArm, FutureArm, JoinArm, Joins, OneshotArm, ReadyArm, RecvArm, SendArm, TimeArm, accept, after, at, future,
    join, oneshot, readable, recv, send, writable,
};
#[doc(hidden)]
pub use macros::{Either, Nobody};

use crate::observe::{Choices, WaitReason};
use crate::scheduler::handover::{self, Waited, wait_revocably};
use crate::scheduler::suspend::{self, here};
use crate::sync::choice::Choice;

/// One of the things that [`wait`] waits for, made by the functions of this module.
pub trait Arm {
    #[doc(hidden)]
    fn inner(&mut self) -> Inner<'_>;
}

/// What an arm can do; nobody else's business.
#[doc(hidden)]
#[allow(missing_debug_implementations, reason = "it is never seen")]
pub struct Inner<'a>(pub(crate) &'a mut dyn Operation);

/// What [`wait`] asks of an arm. A result, once there is one, stays in the arm.
pub(crate) trait Operation {
    /// Does it, if it can be done now: whether it did.
    fn attempt(&mut self) -> bool;

    /// Has itself be woken; false if there is something to do now.
    ///
    /// # Safety
    /// The choice and the arm stay where they are until [`leave`](Operation::leave) was called.
    unsafe fn enlist(&mut self, choice: &Choice) -> bool;

    /// Whether another attempt is worth while; for what does not serve the choice itself.
    fn is_due(&mut self) -> bool {
        false
    }

    /// Takes back what `enlist` did, whether that said true or false. Whether somebody has served the choice by way of this arm.
    fn leave(&mut self) -> bool;

    /// When there will be something to do without anybody else.
    fn deadline(&self) -> Option<Instant> {
        None
    }

    /// Nobody will tell: a plain thread has to look.
    fn must_look(&self) -> bool {
        false
    }

    /// What is waited for, but for points in time.
    fn reason(&self) -> Option<WaitReason>;
}

/// So often a plain thread looks at sockets that it waits for together with other things.
const LOOK: Duration = Duration::from_millis(1);

/// After so many rounds that found something to do and then did not, others get a turn.
const ROUNDS: u32 = 16;

/// Waits until one of the arms can go on, does what it stands for, and returns its place in `arms`. Without arms it waits for
/// ever.
///
/// # Panics
/// As a future among the arms does; inside [`no_switch`](crate::no_switch) where it would wait.
///
/// # Cancellation
/// See the module: unwinds if an interrupt is due, also where something could be done at once, so that a loop over it ends.
pub fn wait(arms: &mut [&mut dyn Arm]) -> usize {
    suspend::checkpoint();
    let mut rounds = 0;
    loop {
        if let Some(i) = attempt(arms) {
            return i;
        }
        if handover::switch_refused() {
            handover::refuse();
        }
        match sleep(arms) {
            Woken::Served(i) => return i,
            Woken::Interrupted => suspend::checkpoint(),
            Woken::Due => {}
        }
        rounds += 1;
        if rounds % ROUNDS == 0 {
            crate::scheduler::yield_slice();
        }
    }
}

/// As [`wait`], if one of the arms can go on now; it never waits. A task that keeps asking in vain gives way to others every so
/// often.
pub fn try_now(arms: &mut [&mut dyn Arm]) -> Option<usize> {
    let found = attempt(arms);
    if found.is_none() {
        handover::polled_in_vain();
    }
    found
}

/// One attempt at each, in random order.
fn attempt(arms: &mut [&mut dyn Arm]) -> Option<usize> {
    const MOST: usize = 64;
    let n = arms.len();
    let mut order: [u8; MOST] = std::array::from_fn(|i| i as u8);
    if n > MOST {
        // Which is first is what matters most.
        let start = below(n);
        return (0..n).map(|k| (start + k) % n).find(|&i| arms[i].inner().0.attempt());
    }
    for k in 0..n {
        order.swap(k, k + below(n - k));
        let i = usize::from(order[k]);
        if arms[i].inner().0.attempt() {
            return Some(i);
        }
    }
    None
}

/// A random number below `n`, which is not 0.
fn below(n: usize) -> usize {
    thread_local! {
        static STATE: Cell<u64> = const { Cell::new(0) };
    }
    // Needs no destructor, so it can be reached until the very end of the thread.
    STATE.with(|state| {
        let seed = match state.get() {
            0 => std::ptr::from_ref(state).addr() as u64 ^ suspend::ticks() | 1,
            s => s,
        };
        let mut x = seed;
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        state.set(x);
        ((u128::from(x) * n as u128) >> 64) as usize
    })
}

/// How a wait ended.
enum Woken {
    Served(usize),
    Due,
    Interrupted,
}

/// Stands in every line until something happens, and leaves them all.
fn sleep(arms: &mut [&mut dyn Arm]) -> Woken {
    let choice = Choice::new();
    let mut lines = Lines { arms, entered: 0, served: None };
    let mut shown = Choices::new(lines.arms.len());
    for i in 0..lines.arms.len() {
        lines.entered = i + 1;
        let arm = lines.arms[i].inner().0;
        // SAFETY: `lines` borrows the arms and has each leave before it goes, and the choice was made before it.
        if !unsafe { arm.enlist(&choice) } {
            return lines.leave().map_or(Woken::Due, Woken::Served);
        }
        shown.add(arm.reason());
    }
    let mut deadline = lines.arms.iter_mut().filter_map(|arm| arm.inner().0.deadline()).min();
    if here().is_none() && lines.arms.iter_mut().any(|arm| arm.inner().0.must_look()) {
        let look = Instant::now() + LOOK;
        deadline = Some(deadline.map_or(look, |d| d.min(look)));
    }
    let over = || choice.is_over() || lines.arms.iter_mut().any(|arm| arm.inner().0.is_due());
    let waited = wait_revocably(WaitReason::choices(&shown), deadline, over);
    match (lines.leave(), waited) {
        (Some(i), _) => Woken::Served(i),
        (None, Waited::Interrupted) => Woken::Interrupted,
        (None, Waited::Done | Waited::Expired) => Woken::Due,
    }
}

/// The arms that have entered lines; all of them leave, whatever happens.
struct Lines<'a, 'b> {
    arms: &'a mut [&'b mut dyn Arm],
    entered: usize,
    served: Option<usize>,
}

impl Lines<'_, '_> {
    fn leave(&mut self) -> Option<usize> {
        while let Some(i) = self.entered.checked_sub(1) {
            self.entered = i;
            if self.arms[i].inner().0.leave() {
                self.served = Some(i);
            }
        }
        self.served
    }
}

impl Drop for Lines<'_, '_> {
    fn drop(&mut self) {
        self.leave();
    }
}
