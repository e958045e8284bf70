//! Channels for one message, with the surface of std's `oneshot` (which is not stable yet).
//!
//! One allocation, no lock: a word that both sides change by single steps.
//!
//! ```text
//!             send                     EMPTY, WAITING → SENT
//!             the sender goes          EMPTY, WAITING → OVER
//!             the receiver waits       EMPTY → WAITING
//!             it stops waiting         WAITING → EMPTY
//!             it takes, or goes        SENT, EMPTY → OVER
//! ```
//!
//! Invariants: the value is the sender's until SENT, then the receiver's; if the sender finds OVER, it is the sender's
//! again. The unparker is the receiver's but in WAITING; who ends WAITING takes it over. So a receiver that is cancelled
//! or times out either finds that it was served, and returns the message, or is not waiting any more (hazard 18).

use std::any::type_name;
use std::cell::UnsafeCell;
use std::fmt;
use std::mem::MaybeUninit;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use std::sync::mpsc::{RecvError, SendError};

use super::woven::{Call, Outcome, State};
use crate::observe::{Object, WaitKind, WaitReason};
use crate::scheduler::handover::{self, Waited};
use crate::scheduler::suspend;
use crate::sys::atomic::{AtomicU32, Ordering};
use crate::task::Unparker;

const EMPTY: u32 = 0;
const WAITING: u32 = 1;
const SENT: u32 = 2;
const OVER: u32 = 3;

struct Shared<T> {
    object: Object,
    word: AtomicU32,
    value: UnsafeCell<MaybeUninit<T>>,
    unparker: UnsafeCell<Option<Unparker>>,
}

// SAFETY: the word says who may touch what (see the module's head); the value moves between threads, no reference does.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

/// A channel for one message.
///
/// # Examples
/// ```
/// coro::run(|| {
///     let (reply, answer) = coro::sync::oneshot::channel();
///     coro::spawn(move || reply.send(6 * 7).unwrap());
///     assert_eq!(answer.recv(), Ok(42));
/// });
/// ```
#[must_use]
#[track_caller]
pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
    pair(Object::new())
}

/// As [`channel`], with a name for the views.
#[must_use]
#[track_caller]
pub fn channel_named<T>(name: &'static str) -> (Sender<T>, Receiver<T>) {
    let mut object = Object::new();
    object.set_name(name);
    pair(object)
}

fn pair<T>(object: Object) -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared {
        object,
        word: AtomicU32::new(EMPTY),
        value: UnsafeCell::new(MaybeUninit::uninit()),
        unparker: UnsafeCell::new(None),
    });
    (Sender { shared: shared.clone() }, Receiver { shared })
}

/// The sending side.
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
}

// SAFETY: nothing can be done with a shared reference to it.
unsafe impl<T> Sync for Sender<T> {}
impl<T> UnwindSafe for Sender<T> {}
impl<T> RefUnwindSafe for Sender<T> {}

impl<T> Sender<T> {
    /// Sends the message; never waits.
    ///
    /// # Errors
    /// The message if the receiver is gone.
    pub fn send(self, t: T) -> Result<(), SendError<T>> {
        if Call::Send.is_watched() {
            let shared = self.shared.clone();
            let outcome = |sent: &Result<(), SendError<T>>| match sent {
                Ok(()) => Outcome::Done,
                Err(_) => Outcome::Failed("disconnected"),
            };
            let state = State::Messages { busy: false, queued: 0 };
            return Call::Send.told(&shared.object, state, || self.send_untold(t), outcome, drop);
        }
        self.send_untold(t)
    }

    #[inline(always)]
    fn send_untold(self, t: T) -> Result<(), SendError<T>> {
        let shared = &*self.shared;
        // SAFETY: the value is the sender's until SENT, and there is one sender, which this call consumes.
        unsafe { (*shared.value.get()).write(t) };
        match shared.word.swap(SENT, Ordering::AcqRel) {
            EMPTY => Ok(()),
            WAITING => {
                shared.wake();
                Ok(())
            }
            _ => {
                shared.word.store(OVER, Ordering::Relaxed);
                // SAFETY: written above, and the receiver went before it could see SENT.
                Err(SendError(unsafe { (*shared.value.get()).assume_init_read() }))
            }
        }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let word = &self.shared.word;
        let mut now = word.load(Ordering::Relaxed);
        while matches!(now, EMPTY | WAITING) {
            match word.compare_exchange_weak(now, OVER, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(EMPTY) => return,
                Ok(_) => return self.shared.wake(),
                Err(changed) => now = changed,
            }
        }
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

impl<T> Shared<T> {
    /// For the sender, when it has ended WAITING.
    fn wake(&self) {
        // SAFETY: who ends WAITING takes the unparker over, and the receiver wrote it before.
        if let Some(unparker) = unsafe { (*self.unparker.get()).take() } {
            crate::scheduler::unpark(&unparker);
        }
    }
}

/// The receiving side.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
}

// SAFETY: nothing can be done with a shared reference to it.
unsafe impl<T> Sync for Receiver<T> {}
impl<T> UnwindSafe for Receiver<T> {}
impl<T> RefUnwindSafe for Receiver<T> {}

/// Why there is no message.
enum Missing {
    Yet,
    ForEver,
}

impl<T> Receiver<T> {
    /// Waits for the message.
    ///
    /// # Errors
    /// When the sender went without sending one.
    ///
    /// # Cancellation
    /// Unwinds if an interrupt is due while it waits; as the receiver is gone then, the sender gets its message back. A
    /// message that is there is returned in any case.
    pub fn recv(self) -> Result<T, RecvError> {
        self.receive(|| None).map_err(|_| RecvError)
    }

    /// The message if it is there now. A task that keeps trying in vain gives way to others every so often.
    ///
    /// # Errors
    /// The receiver if there is no message yet.
    pub fn try_recv(self) -> Result<T, TryRecvError<T>> {
        let looked = match Call::TryRecv.is_watched() {
            true => self.told(Call::TryRecv, || self.look(), "empty"),
            false => self.look(),
        };
        match looked {
            Ok(value) => Ok(value),
            Err(Missing::ForEver) => Err(TryRecvError::Disconnected),
            Err(Missing::Yet) => {
                handover::polled_in_vain();
                Err(TryRecvError::Empty(self))
            }
        }
    }

    /// As [`recv`](Receiver::recv), waiting for at most `timeout`.
    ///
    /// # Errors
    /// The receiver if there was no message in time.
    ///
    /// # Cancellation
    /// As [`recv`](Receiver::recv); its own timeout is an error and never unwinds.
    pub fn recv_timeout(self, timeout: Duration) -> Result<T, RecvTimeoutError<T>> {
        self.receive_by(|| Instant::now().checked_add(timeout))
    }

    /// As [`recv`](Receiver::recv), waiting until `deadline` at the latest.
    ///
    /// # Errors
    /// As [`recv_timeout`](Receiver::recv_timeout).
    ///
    /// # Cancellation
    /// As [`recv_timeout`](Receiver::recv_timeout).
    pub fn recv_deadline(self, deadline: Instant) -> Result<T, RecvTimeoutError<T>> {
        self.receive_by(|| Some(deadline))
    }

    fn receive_by(self, limit: impl FnOnce() -> Option<Instant>) -> Result<T, RecvTimeoutError<T>> {
        match self.receive(limit) {
            Ok(value) => Ok(value),
            Err(Missing::ForEver) => Err(RecvTimeoutError::Disconnected),
            Err(Missing::Yet) => Err(RecvTimeoutError::Timeout(self)),
        }
    }

    #[inline]
    fn look(&self) -> Result<T, Missing> {
        match self.shared.word.load(Ordering::Acquire) {
            SENT => {
                self.shared.word.store(OVER, Ordering::Relaxed);
                // SAFETY: after SENT the value is the receiver's, which takes it once: the word says OVER now.
                Ok(unsafe { (*self.shared.value.get()).assume_init_read() })
            }
            OVER => Err(Missing::ForEver),
            _ => Err(Missing::Yet),
        }
    }

    fn receive(&self, limit: impl FnOnce() -> Option<Instant>) -> Result<T, Missing> {
        if Call::Recv.is_watched() {
            return self.told(Call::Recv, || self.receive_untold(limit), "timed out");
        }
        self.receive_untold(limit)
    }

    /// A call that somebody watches; `yet`: what it is if there is no message yet.
    #[cold]
    fn told(&self, call: Call, receive: impl FnOnce() -> Result<T, Missing>, yet: &'static str) -> Result<T, Missing> {
        let queued = usize::from(self.shared.word.load(Ordering::Relaxed) == SENT);
        let busy = !self.is_due();
        let outcome = |received: &Result<T, Missing>| match received {
            Ok(_) => Outcome::Message(type_name::<T>()),
            Err(Missing::Yet) => Outcome::Failed(yet),
            Err(Missing::ForEver) => Outcome::Failed("disconnected"),
        };
        call.told(&self.shared.object, State::Messages { busy, queued }, receive, outcome, drop)
    }

    #[inline(always)]
    fn receive_untold(&self, limit: impl FnOnce() -> Option<Instant>) -> Result<T, Missing> {
        match self.look() {
            Err(Missing::Yet) => self.receive_slow(limit()),
            known => known,
        }
    }

    #[cold]
    fn receive_slow(&self, deadline: Option<Instant>) -> Result<T, Missing> {
        let Shared { word, unparker, .. } = &*self.shared;
        let reason = self.reason();
        loop {
            suspend::checkpoint();
            // SAFETY: the unparker is the receiver's but in WAITING.
            unsafe { *unparker.get() = Some(suspend::current_unparker()) };
            if word.compare_exchange(EMPTY, WAITING, Ordering::AcqRel, Ordering::Relaxed).is_err() {
                return self.look();
            }
            // Should the wait unwind, the receiver goes in WAITING and leaves the unparker where it is.
            let over = || word.load(Ordering::Acquire) != WAITING;
            let waited = handover::wait_revocably(reason, deadline, over);
            if waited == Waited::Done
                || word.compare_exchange(WAITING, EMPTY, Ordering::AcqRel, Ordering::Relaxed).is_err()
            {
                return self.look();
            }
            if waited == Waited::Expired {
                return Err(Missing::Yet);
            }
        }
    }
}

/// What `select` has of it. The receiver is borrowed from `announce` to `withdraw`, so nobody else waits by way of it meanwhile.
impl<T> Receiver<T> {
    /// The message, or the news that there will be none; `None`: neither now.
    pub(crate) fn attempt(&mut self) -> Option<Result<T, RecvError>> {
        let looked = match Call::Recv.is_watched() && self.is_due() {
            true => self.told(Call::Recv, || self.look(), "timed out"),
            false => self.look(),
        };
        match looked {
            Ok(value) => Some(Ok(value)),
            Err(Missing::ForEver) => Some(Err(RecvError)),
            Err(Missing::Yet) => None,
        }
    }

    /// Has that waiter be woken; false if there is something now.
    pub(crate) fn announce(&mut self, waiter: Unparker) -> bool {
        let Shared { word, unparker, .. } = &*self.shared;
        if word.load(Ordering::Acquire) != EMPTY {
            return false;
        }
        // SAFETY: the unparker is the receiver's but in WAITING, from which only `withdraw` and the sender lead; and after the
        // sender has, the word is never EMPTY again.
        unsafe { *unparker.get() = Some(waiter) };
        word.compare_exchange(EMPTY, WAITING, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Whether the sender has sent or gone.
    pub(crate) fn is_due(&self) -> bool {
        !matches!(self.shared.word.load(Ordering::Acquire), EMPTY | WAITING)
    }

    /// Takes back what `announce` did.
    pub(crate) fn withdraw(&mut self) {
        let _ = self.shared.word.compare_exchange(WAITING, EMPTY, Ordering::AcqRel, Ordering::Relaxed);
    }

    pub(crate) fn reason(&self) -> WaitReason {
        WaitReason::object(WaitKind::Oneshot, &self.shared.object)
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let word = &self.shared.word;
        if word.load(Ordering::Relaxed) != OVER && word.swap(OVER, Ordering::AcqRel) == SENT {
            // SAFETY: after SENT the value is the receiver's, and nobody has taken it: the word did not say OVER.
            unsafe { (*self.shared.value.get()).assume_init_drop() };
        }
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}

/// What [`Receiver::try_recv`] returns when there is no message.
pub enum TryRecvError<T> {
    /// The sender may still send it.
    Empty(Receiver<T>),
    /// There will be none.
    Disconnected,
}

/// What [`Receiver::recv_timeout`] returns when there is no message.
pub enum RecvTimeoutError<T> {
    /// None came in time; the sender may still send it.
    Timeout(Receiver<T>),
    /// There will be none.
    Disconnected,
}

macro_rules! error {
    ($name:ident, $kept:ident, $yet:literal) => {
        impl<T> fmt::Debug for $name<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($name)).finish_non_exhaustive()
            }
        }

        impl<T> fmt::Display for $name<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(match self {
                    $name::$kept(_) => $yet,
                    $name::Disconnected => "receiving on a closed oneshot channel",
                })
            }
        }

        impl<T> std::error::Error for $name<T> {}

        impl<T> From<RecvError> for $name<T> {
            fn from(_: RecvError) -> $name<T> {
                $name::Disconnected
            }
        }
    };
}

error!(TryRecvError, Empty, "receiving on an empty oneshot channel");
error!(RecvTimeoutError, Timeout, "timed out waiting on oneshot channel");
