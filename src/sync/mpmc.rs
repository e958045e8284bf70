//! Channels with many senders and many receivers, with the surface of std's `mpmc` (which is not stable yet).
//!
//! A message is received once, by one receiver. Receivers that wait are served in the order in which they came, and so
//! are senders that wait for room; nobody who comes later is faster.
//!
//! # Cancellation
//! A message that was accepted is received or dropped with the channel, whatever is cancelled or times out meanwhile. A
//! receiver to which a message was handed returns it even if it is cancelled at that moment; the cancellation is raised
//! by its next wait. A sender whose message was received returns `Ok` likewise.
//!
//! # Where messages are dropped
//! Those that nobody received: by the task or thread that drops the last receiver, outside every lock. The message of a
//! send that is cancelled: by the sender, as it unwinds. All others come back in errors.

#![forbid(unsafe_code)]

use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use std::sync::mpsc::{RecvError, RecvTimeoutError, SendError, TryRecvError, TrySendError};

use super::channel::{Channel, Clock, Unsent};
use super::channel_iter::receiver_iterators;

/// An unbounded channel; crossbeam-channel's `unbounded`.
///
/// # Examples
/// ```
/// let total: u32 = coro::run(|| {
///     let (tx, rx) = coro::sync::mpmc::channel();
///     let workers: Vec<_> = (0..3)
///         .map(|_| {
///             let rx = rx.clone();
///             coro::spawn(move || rx.iter().sum::<u32>())
///         })
///         .collect();
///     (1..=100).for_each(|job| tx.send(job).unwrap());
///     drop(tx);
///     workers.into_iter().map(|w| w.join().unwrap()).sum()
/// });
/// assert_eq!(total, 5050);
/// ```
#[doc(alias = "unbounded")]
#[must_use]
#[track_caller]
pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
    pair(None, None)
}

/// A channel that holds at most `cap` messages; with 0 every message goes directly from a sender to a receiver.
#[doc(alias = "bounded")]
#[must_use]
#[track_caller]
pub fn sync_channel<T>(cap: usize) -> (Sender<T>, Receiver<T>) {
    pair(Some(cap), None)
}

/// As [`channel`], with a name for the views.
#[must_use]
#[track_caller]
pub fn channel_named<T>(name: &'static str) -> (Sender<T>, Receiver<T>) {
    pair(None, Some(name))
}

/// As [`sync_channel`], with a name for the views.
#[must_use]
#[track_caller]
pub fn sync_channel_named<T>(name: &'static str, cap: usize) -> (Sender<T>, Receiver<T>) {
    pair(Some(cap), Some(name))
}

#[track_caller]
pub(super) fn pair<T>(capacity: Option<usize>, name: Option<&'static str>) -> (Sender<T>, Receiver<T>) {
    let channel = Channel::shared(capacity, name);
    (Sender { channel: channel.clone() }, Receiver { channel })
}

/// A channel that gives one message, `duration` from now: the time at which that was.
///
/// It holds one message and is never disconnected. Nothing runs for it meanwhile. A duration that no [`Instant`] can hold makes it
/// [`never`](never()). Inside a `select!` the arm `after` does the same without a channel; this is for what goes from choice to choice.
///
/// # Examples
/// ```
/// use coro::sync::mpmc;
/// use std::time::{Duration, Instant};
///
/// let begun = Instant::now();
/// let limit = mpmc::after(Duration::from_millis(5));
/// assert!(limit.recv().unwrap() >= begun + Duration::from_millis(5));
/// assert!(limit.try_recv().is_err());
/// ```
#[must_use]
#[track_caller]
pub fn after(duration: Duration) -> Receiver<Instant> {
    ticking("after", Clock { period: None, message: |at| at }, Instant::now().checked_add(duration))
}

/// As [`after`], at that time.
#[must_use]
#[track_caller]
pub fn at(when: Instant) -> Receiver<Instant> {
    ticking("at", Clock { period: None, message: |at| at }, Some(when))
}

/// A channel that gives a message every `period`, the first one a period from now: the time at which that was.
///
/// It holds one message: while nobody takes that, there are no others, and the next one comes at its place in the row, or a
/// period after the one that was taken too late. It is never disconnected, and nothing runs for it meanwhile.
///
/// # Examples
/// ```
/// use coro::sync::mpmc;
/// use std::time::Duration;
///
/// let ticks = mpmc::tick(Duration::from_millis(2));
/// let (first, second) = (ticks.recv().unwrap(), ticks.recv().unwrap());
/// assert!(second >= first + Duration::from_millis(2));
/// ```
#[must_use]
#[track_caller]
pub fn tick(period: Duration) -> Receiver<Instant> {
    ticking("tick", Clock { period: Some(period), message: |at| at }, Instant::now().checked_add(period))
}

/// A channel that never gives anything and is never disconnected: for an arm of a choice that is switched off.
#[must_use]
#[track_caller]
pub fn never<T>() -> Receiver<T> {
    let clock = Clock { period: None, message: |_| -> T { unreachable!("a channel without a time has no messages") } };
    Receiver { channel: Channel::ticking(0, "never", clock, None) }
}

#[track_caller]
fn ticking(name: &'static str, clock: Clock<Instant>, next: Option<Instant>) -> Receiver<Instant> {
    Receiver { channel: Channel::ticking(1, name, clock, next) }
}

/// A send that did not happen in time, with the message.
#[derive(PartialEq, Eq, Clone, Copy)]
pub enum SendTimeoutError<T> {
    /// There was no room in time; without room at all: no receiver.
    Timeout(T),
    /// All receivers are gone.
    Disconnected(T),
}

impl<T> fmt::Debug for SendTimeoutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // With the quotes, as std prints it.
        fmt::Debug::fmt("SendTimeoutError(..)", f)
    }
}

impl<T> fmt::Display for SendTimeoutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            SendTimeoutError::Timeout(_) => "timed out waiting on send operation",
            SendTimeoutError::Disconnected(_) => "sending on a disconnected channel",
        })
    }
}

impl<T> std::error::Error for SendTimeoutError<T> {}

impl<T> From<SendError<T>> for SendTimeoutError<T> {
    fn from(e: SendError<T>) -> SendTimeoutError<T> {
        SendTimeoutError::Disconnected(e.0)
    }
}

/// The sending side of a channel; the clones of one are as good as itself.
pub struct Sender<T> {
    channel: Arc<Channel<T>>,
}

impl<T> UnwindSafe for Sender<T> {}
impl<T> RefUnwindSafe for Sender<T> {}

impl<T> Sender<T> {
    pub(super) fn channel(&self) -> &Channel<T> {
        &self.channel
    }

    /// Sends a message when there is room; without a bound there always is, but a task that gets a thousand messages
    /// ahead gives way to others once.
    ///
    /// # Errors
    /// The message if all receivers are gone.
    ///
    /// # Cancellation
    /// Unwinds if an interrupt is due while it waits for room; the message is then dropped and was not sent. A channel
    /// without a bound never waits and is no cancellation point.
    pub fn send(&self, msg: T) -> Result<(), SendError<T>> {
        self.channel.send(msg, || None).map_err(|e| match e {
            Unsent::Disconnected(v) | Unsent::Expired(v) => SendError(v),
        })
    }

    /// Sends a message if there is room now; in a channel for no messages: if a receiver waits, which then returns it.
    ///
    /// Never waits. A task that keeps trying gives way to others every so often.
    ///
    /// # Errors
    /// The message if there is no room or no receiver.
    pub fn try_send(&self, msg: T) -> Result<(), TrySendError<T>> {
        self.channel.try_send(msg)
    }

    /// As [`send`](Sender::send), waiting for at most `timeout`.
    ///
    /// # Errors
    /// The message if there was no room in time or all receivers are gone.
    ///
    /// # Cancellation
    /// As [`send`](Sender::send).
    pub fn send_timeout(&self, msg: T, timeout: Duration) -> Result<(), SendTimeoutError<T>> {
        self.send_by(msg, || Instant::now().checked_add(timeout))
    }

    /// As [`send`](Sender::send), waiting until `deadline` at the latest.
    ///
    /// # Errors
    /// As [`send_timeout`](Sender::send_timeout).
    ///
    /// # Cancellation
    /// As [`send`](Sender::send).
    pub fn send_deadline(&self, msg: T, deadline: Instant) -> Result<(), SendTimeoutError<T>> {
        self.send_by(msg, || Some(deadline))
    }

    fn send_by(&self, msg: T, limit: impl FnOnce() -> Option<Instant>) -> Result<(), SendTimeoutError<T>> {
        self.channel.send(msg, limit).map_err(|e| match e {
            Unsent::Disconnected(v) => SendTimeoutError::Disconnected(v),
            Unsent::Expired(v) => SendTimeoutError::Timeout(v),
        })
    }

    /// Whether no message lies in the channel; one that holds none is always empty.
    pub fn is_empty(&self) -> bool {
        self.channel.len() == 0
    }

    /// Whether there is no room; a channel that holds no messages is always full.
    pub fn is_full(&self) -> bool {
        self.channel.is_full()
    }

    /// How many messages lie in the channel.
    #[allow(clippy::len_without_is_empty, reason = "it is there")]
    pub fn len(&self) -> usize {
        self.channel.len()
    }

    /// How many it holds; `None` without a bound.
    pub fn capacity(&self) -> Option<usize> {
        self.channel.capacity()
    }

    /// Whether both send into the same channel.
    pub fn same_channel(&self, other: &Sender<T>) -> bool {
        Arc::ptr_eq(&self.channel, &other.channel)
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        self.channel.add_sender();
        Sender { channel: self.channel.clone() }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.channel.remove_sender();
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

/// The receiving side of a channel; its clones take messages from the same channel.
pub struct Receiver<T> {
    channel: Arc<Channel<T>>,
}

impl<T> UnwindSafe for Receiver<T> {}
impl<T> RefUnwindSafe for Receiver<T> {}

impl<T> Receiver<T> {
    pub(super) fn channel(&self) -> &Channel<T> {
        &self.channel
    }

    /// Waits for a message.
    ///
    /// # Errors
    /// When the channel is empty and all senders are gone.
    ///
    /// # Cancellation
    /// Unwinds if an interrupt is due; no message is lost.
    pub fn recv(&self) -> Result<T, RecvError> {
        self.channel.recv(|| None).map_err(|_| RecvError)
    }

    /// A message if there is one now. In a channel for no messages: that of a sender that waits.
    ///
    /// Never waits. A task that keeps trying gives way to others every so often.
    ///
    /// # Errors
    /// Whether the channel is empty or also disconnected.
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        self.channel.try_recv()
    }

    /// As [`recv`](Receiver::recv), waiting for at most `timeout`.
    ///
    /// # Errors
    /// `Timeout` if no message came in time, `Disconnected` as `recv`.
    ///
    /// # Cancellation
    /// As [`recv`](Receiver::recv); its own timeout is an error and never unwinds.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<T, RecvTimeoutError> {
        self.channel.recv(|| Instant::now().checked_add(timeout))
    }

    /// As [`recv`](Receiver::recv), waiting until `deadline` at the latest.
    ///
    /// # Errors
    /// As [`recv_timeout`](Receiver::recv_timeout).
    ///
    /// # Cancellation
    /// As [`recv_timeout`](Receiver::recv_timeout).
    pub fn recv_deadline(&self, deadline: Instant) -> Result<T, RecvTimeoutError> {
        self.channel.recv(|| Some(deadline))
    }

    /// Whether no message lies in the channel; one that holds none is always empty.
    pub fn is_empty(&self) -> bool {
        self.channel.len() == 0
    }

    /// Whether there is no room; a channel that holds no messages is always full.
    pub fn is_full(&self) -> bool {
        self.channel.is_full()
    }

    /// How many messages lie in the channel.
    #[allow(clippy::len_without_is_empty, reason = "it is there")]
    pub fn len(&self) -> usize {
        self.channel.len()
    }

    /// How many it holds; `None` without a bound.
    pub fn capacity(&self) -> Option<usize> {
        self.channel.capacity()
    }

    /// Whether both receive from the same channel.
    pub fn same_channel(&self, other: &Receiver<T>) -> bool {
        Arc::ptr_eq(&self.channel, &other.channel)
    }
}

receiver_iterators!();

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Receiver<T> {
        self.channel.add_receiver();
        Receiver { channel: self.channel.clone() }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.channel.remove_receiver();
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}
