//! Channels with many senders and one receiver, with [`std::sync::mpsc`]'s surface.
//!
//! They are those of [`mpmc`] with a receiver that cannot be cloned; what is said there of cancellation
//! and of where messages are dropped holds here.

#![forbid(unsafe_code)]

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::panic::RefUnwindSafe;
use std::time::{Duration, Instant};

pub use std::sync::mpsc::{RecvError, RecvTimeoutError, SendError, TryRecvError, TrySendError};

use super::channel::Channel;
use super::channel_iter::receiver_iterators;
use super::mpmc;

/// An unbounded channel.
///
/// # Examples
/// ```
/// let sum: u32 = coro::run(|| {
///     let (tx, rx) = coro::sync::mpsc::channel();
///     for i in 0..4 {
///         let tx = tx.clone();
///         coro::spawn(move || tx.send(i).unwrap());
///     }
///     drop(tx);
///     rx.iter().sum()
/// });
/// assert_eq!(sum, 6);
/// ```
#[must_use]
#[track_caller]
pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let (inner, rx) = mpmc::pair(None, None);
    (Sender { inner }, Receiver::new(rx))
}

/// A channel that holds at most `bound` messages; with 0 every send waits for a receiver and hands it the message.
#[must_use]
#[track_caller]
pub fn sync_channel<T>(bound: usize) -> (SyncSender<T>, Receiver<T>) {
    let (inner, rx) = mpmc::pair(Some(bound), None);
    (SyncSender { inner }, Receiver::new(rx))
}

/// As [`channel`], with a name for the views.
///
/// # Examples
/// ```
/// let (tx, rx) = coro::sync::mpsc::channel_named("jobs");
/// tx.send(1).unwrap();
/// assert_eq!(rx.recv(), Ok(1));
/// ```
#[must_use]
#[track_caller]
pub fn channel_named<T>(name: &'static str) -> (Sender<T>, Receiver<T>) {
    let (inner, rx) = mpmc::pair(None, Some(name));
    (Sender { inner }, Receiver::new(rx))
}

/// As [`sync_channel`], with a name for the views.
#[must_use]
#[track_caller]
pub fn sync_channel_named<T>(name: &'static str, bound: usize) -> (SyncSender<T>, Receiver<T>) {
    let (inner, rx) = mpmc::pair(Some(bound), Some(name));
    (SyncSender { inner }, Receiver::new(rx))
}

/// The sending side of [`channel`].
pub struct Sender<T> {
    inner: mpmc::Sender<T>,
}

impl<T> Sender<T> {
    pub(super) fn channel(&self) -> &Channel<T> {
        self.inner.channel()
    }

    /// Queues a message; never waits for anything. A task that gets a thousand messages ahead gives way to others once.
    ///
    /// # Errors
    /// The message if the receiver is gone.
    pub fn send(&self, t: T) -> Result<(), SendError<T>> {
        self.inner.send(t)
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        Sender { inner: self.inner.clone() }
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

/// The sending side of [`sync_channel`].
pub struct SyncSender<T> {
    inner: mpmc::Sender<T>,
}

impl<T> SyncSender<T> {
    pub(super) fn channel(&self) -> &Channel<T> {
        self.inner.channel()
    }

    /// Sends a message when there is room; with a bound of 0 when a receiver takes it.
    ///
    /// # Errors
    /// The message if the receiver is gone.
    ///
    /// # Cancellation
    /// Unwinds if an interrupt is due while it waits; the message is then dropped and was not sent.
    pub fn send(&self, t: T) -> Result<(), SendError<T>> {
        self.inner.send(t)
    }

    /// Sends a message if there is room now; with a bound of 0 if the receiver waits, which then returns it.
    ///
    /// Never waits. A task that keeps trying gives way to others every so often.
    ///
    /// # Errors
    /// The message if there is no room or no receiver.
    pub fn try_send(&self, t: T) -> Result<(), TrySendError<T>> {
        self.inner.try_send(t)
    }

    /// As [`send`](SyncSender::send), waiting for at most `timeout`. Not stable in std.
    ///
    /// # Errors
    /// The message if there was no room in time or the receiver is gone.
    ///
    /// # Cancellation
    /// As [`send`](SyncSender::send); its own timeout is an error and never unwinds.
    pub fn send_timeout(&self, t: T, timeout: Duration) -> Result<(), mpmc::SendTimeoutError<T>> {
        self.inner.send_timeout(t, timeout)
    }
}

impl<T> Clone for SyncSender<T> {
    fn clone(&self) -> SyncSender<T> {
        SyncSender { inner: self.inner.clone() }
    }
}

impl<T> fmt::Debug for SyncSender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SyncSender").finish_non_exhaustive()
    }
}

/// The receiving side of a channel.
///
/// It can be sent to another thread but not shared between threads, as std's:
/// ```compile_fail,E0277
/// fn shared<T: Sync>(_: T) {}
/// shared(coro::sync::mpsc::channel::<u32>().1);
/// ```
pub struct Receiver<T> {
    inner: mpmc::Receiver<T>,
    not_sync: PhantomData<Cell<()>>,
}

/// The mark above would say otherwise.
impl<T> RefUnwindSafe for Receiver<T> {}

impl<T> Receiver<T> {
    pub(super) fn channel(&self) -> &Channel<T> {
        self.inner.channel()
    }

    fn new(inner: mpmc::Receiver<T>) -> Receiver<T> {
        Receiver { inner, not_sync: PhantomData }
    }

    /// Waits for a message.
    ///
    /// # Errors
    /// When the channel is empty and all senders are gone.
    ///
    /// # Cancellation
    /// Unwinds if an interrupt is due; no message is lost.
    pub fn recv(&self) -> Result<T, RecvError> {
        self.inner.recv()
    }

    /// A message if there is one now; with a bound of 0 that of a sender that waits.
    ///
    /// Never waits. A task that keeps trying gives way to others every so often.
    ///
    /// # Errors
    /// Whether the channel is empty or also disconnected.
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        self.inner.try_recv()
    }

    /// As [`recv`](Receiver::recv), waiting for at most `timeout`.
    ///
    /// # Errors
    /// `Timeout` if no message came in time, `Disconnected` as `recv`.
    ///
    /// # Cancellation
    /// As [`recv`](Receiver::recv); its own timeout is an error and never unwinds.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<T, RecvTimeoutError> {
        self.inner.recv_timeout(timeout)
    }

    /// As [`recv`](Receiver::recv), waiting until `deadline` at the latest. Not stable in std.
    ///
    /// # Errors
    /// As [`recv_timeout`](Receiver::recv_timeout).
    ///
    /// # Cancellation
    /// As [`recv_timeout`](Receiver::recv_timeout).
    pub fn recv_deadline(&self, deadline: Instant) -> Result<T, RecvTimeoutError> {
        self.inner.recv_deadline(deadline)
    }
}

receiver_iterators!();

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}
