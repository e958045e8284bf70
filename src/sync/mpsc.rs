//! Channels with many senders and one receiver, with [`std::sync::mpsc`]'s surface.
//!
//! One queue under one short lock. A message that was accepted is received or dropped with the channel, whatever is
//! cancelled meanwhile: a waiter that is cancelled after it was chosen passes its turn on.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, PoisonError};

pub use std::sync::mpsc::{RecvError, SendError, TryRecvError, TrySendError};

use super::waiters::{Taken, WaitList, Waiter};
use crate::observe::{Object, WaitKind, WaitReason};
use crate::scheduler::suspend::{self, here};
use crate::sys::atomic::{Lock, LockGuard};

#[derive(Debug)]
struct Inner<T> {
    queue: VecDeque<T>,
    senders: usize,
    receiver: bool,
    /// Messages ever put in and taken out, for rendezvous.
    put: u64,
    taken: u64,
    receivers_waiting: WaitList,
    senders_waiting: WaitList,
    /// Senders of a rendezvous whose message lies in the queue.
    handing_over: WaitList,
}

#[derive(Debug)]
struct Channel<T> {
    object: Object,
    /// `None`: unbounded.
    capacity: Option<usize>,
    inner: Lock<Inner<T>>,
}

impl<T> Channel<T> {
    #[track_caller]
    fn new(capacity: Option<usize>) -> Arc<Channel<T>> {
        Arc::new(Channel {
            object: Object::new(),
            capacity,
            inner: Lock::new(Inner {
                queue: VecDeque::new(),
                senders: 1,
                receiver: true,
                put: 0,
                taken: 0,
                receivers_waiting: WaitList::new(),
                senders_waiting: WaitList::new(),
                handing_over: WaitList::new(),
            }),
        })
    }

    fn lock(&self) -> LockGuard<'_, Inner<T>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reason(&self, kind: WaitKind) -> WaitReason {
        WaitReason::object(kind, &self.object)
    }

    fn has_room(&self, inner: &Inner<T>) -> bool {
        self.capacity.is_none_or(|c| inner.queue.len() < c.max(1))
    }

    fn put(&self, inner: &mut Inner<T>, value: T) -> Option<Taken> {
        inner.queue.push_back(value);
        inner.put += 1;
        inner.receivers_waiting.take_first()
    }

    fn send(&self, value: T) -> Result<(), SendError<T>> {
        suspend::checkpoint();
        let waiter = Waiter::new();
        loop {
            let mut inner = self.lock();
            if !inner.receiver {
                return Err(SendError(value));
            }
            if self.has_room(&inner) {
                let wake = self.put(&mut inner, value);
                let turn = inner.put;
                drop(inner);
                if let Some(w) = wake {
                    w.wake();
                }
                return if self.capacity == Some(0) { self.hand_over(turn, &waiter) } else { Ok(()) };
            }
            waiter.rearm();
            // SAFETY: `Queued` borrows the waiter and takes it out when dropped.
            unsafe { inner.senders_waiting.push_back(&waiter) };
            drop(inner);
            let queued = Queued { channel: self, waiter: &waiter, line: Line::Senders, over: Cell::new(false) };
            waiter.wait(self.reason(WaitKind::Send));
            queued.over.set(true);
        }
    }

    /// Waits until the message of a rendezvous was taken; takes it back if the receiver went away.
    fn hand_over(&self, turn: u64, waiter: &Waiter) -> Result<(), SendError<T>> {
        loop {
            let mut inner = self.lock();
            if inner.taken >= turn {
                return Ok(());
            }
            if !inner.receiver {
                return match inner.queue.pop_front() {
                    Some(value) => Err(SendError(value)),
                    None => Ok(()),
                };
            }
            waiter.rearm();
            // SAFETY: as in `send`.
            unsafe { inner.handing_over.push_back(waiter) };
            drop(inner);
            let queued = Queued { channel: self, waiter, line: Line::HandingOver(turn), over: Cell::new(false) };
            while !waiter.notified() {
                let Some(h) = here() else {
                    suspend::wait(self.reason(WaitKind::Send));
                    continue;
                };
                if !h.would_unwind() {
                    // No checkpoint here: an interrupt that arrives now wakes the park, and the question is asked again.
                    h.park(self.reason(WaitKind::Send));
                } else if self.withdraw(turn, waiter) {
                    h.checkpoint_wait();
                } else {
                    // It was taken first: the send has happened, and the interrupt waits for the next wait.
                    queued.over.set(true);
                    return Ok(());
                }
            }
            queued.over.set(true);
        }
    }

    /// Takes the message of a rendezvous back unless it was received; whether it did. The sender is in no line then.
    fn withdraw(&self, turn: u64, waiter: &Waiter) -> bool {
        let mut inner = self.lock();
        if waiter.is_linked() {
            inner.handing_over.remove(waiter);
        }
        if inner.taken >= turn {
            return false;
        }
        // The queue of a rendezvous holds one message at most.
        let taken_back = inner.queue.pop_front();
        inner.taken = turn;
        let next = inner.senders_waiting.take_first();
        drop(inner);
        if let Some(w) = next {
            w.wake();
        }
        drop(taken_back);
        true
    }

    fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        let mut inner = self.lock();
        if !inner.receiver {
            return Err(TrySendError::Disconnected(value));
        }
        let met = self.capacity != Some(0) || !inner.receivers_waiting.is_empty();
        if !met || !self.has_room(&inner) {
            return Err(TrySendError::Full(value));
        }
        let wake = self.put(&mut inner, value);
        drop(inner);
        if let Some(w) = wake {
            w.wake();
        }
        Ok(())
    }

    fn take(&self, mut inner: LockGuard<'_, Inner<T>>) -> Option<T> {
        let value = inner.queue.pop_front()?;
        inner.taken += 1;
        let handed = inner.handing_over.take_first();
        let room = inner.senders_waiting.take_first();
        drop(inner);
        if let Some(w) = handed {
            w.wake();
        }
        if let Some(w) = room {
            w.wake();
        }
        Some(value)
    }

    fn try_recv(&self) -> Result<T, TryRecvError> {
        let inner = self.lock();
        let gone = inner.senders == 0;
        self.take(inner).ok_or(if gone { TryRecvError::Disconnected } else { TryRecvError::Empty })
    }

    fn recv(&self) -> Result<T, RecvError> {
        // Also where a message is there: a steady stream of them must not keep a task from its end.
        suspend::checkpoint();
        loop {
            let mut inner = self.lock();
            if !inner.queue.is_empty() {
                match self.take(inner) {
                    Some(value) => return Ok(value),
                    None => continue,
                }
            }
            if inner.senders == 0 {
                return Err(RecvError);
            }
            let waiter = Waiter::new();
            // SAFETY: as in `send`.
            unsafe { inner.receivers_waiting.push_back(&waiter) };
            drop(inner);
            let queued = Queued { channel: self, waiter: &waiter, line: Line::Receivers, over: Cell::new(false) };
            waiter.wait(self.reason(WaitKind::Recv));
            queued.over.set(true);
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Line {
    Senders,
    Receivers,
    HandingOver(u64),
}

/// Takes a waiter out when its wait is left early; a turn that was already given is passed on.
struct Queued<'a, T> {
    channel: &'a Channel<T>,
    waiter: &'a Waiter,
    line: Line,
    over: Cell<bool>,
}

impl<T> Drop for Queued<'_, T> {
    fn drop(&mut self) {
        if self.over.get() {
            return;
        }
        if let Line::HandingOver(turn) = self.line {
            self.channel.withdraw(turn, self.waiter);
            return;
        }
        let passed_on = {
            let mut inner = self.channel.lock();
            let linked = self.waiter.is_linked();
            match self.line {
                Line::Senders if linked => {
                    inner.senders_waiting.remove(self.waiter);
                    None
                }
                Line::Senders if self.channel.has_room(&inner) => inner.senders_waiting.take_first(),
                Line::Receivers if linked => {
                    inner.receivers_waiting.remove(self.waiter);
                    None
                }
                Line::Receivers if !inner.queue.is_empty() => inner.receivers_waiting.take_first(),
                _ => None,
            }
        };
        if let Some(w) = passed_on {
            w.wake();
        }
    }
}

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
#[track_caller]
pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let c = Channel::new(None);
    (Sender { channel: c.clone() }, Receiver { channel: c, not_sync: PhantomData })
}

/// A channel that holds at most `bound` messages; with 0 every send waits until its message was received.
#[track_caller]
pub fn sync_channel<T>(bound: usize) -> (SyncSender<T>, Receiver<T>) {
    let c = Channel::new(Some(bound));
    (SyncSender { channel: c.clone() }, Receiver { channel: c, not_sync: PhantomData })
}

macro_rules! sender {
    ($name:ident) => {
        impl<T> Clone for $name<T> {
            fn clone(&self) -> Self {
                self.channel.lock().senders += 1;
                $name { channel: self.channel.clone() }
            }
        }

        impl<T> Drop for $name<T> {
            fn drop(&mut self) {
                let mut inner = self.channel.lock();
                inner.senders -= 1;
                // All of them: tasks of one worker may share the receiver through an `Rc`.
                let mut wake = Vec::new();
                if inner.senders == 0 {
                    wake.extend(std::iter::from_fn(|| inner.receivers_waiting.take_first()));
                }
                drop(inner);
                wake.into_iter().for_each(Taken::wake);
            }
        }

        impl<T> fmt::Debug for $name<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    };
}

/// The sending side of [`channel`].
pub struct Sender<T> {
    channel: Arc<Channel<T>>,
}
sender!(Sender);

impl<T> Sender<T> {
    /// Queues a message; never waits.
    ///
    /// # Errors
    /// The message if the receiver is gone.
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        self.channel.try_send(value).map_err(|e| match e {
            TrySendError::Full(v) | TrySendError::Disconnected(v) => SendError(v),
        })
    }
}

/// The sending side of [`sync_channel`].
pub struct SyncSender<T> {
    channel: Arc<Channel<T>>,
}
sender!(SyncSender);

impl<T> SyncSender<T> {
    /// Queues a message when there is room.
    ///
    /// # Errors
    /// The message if the receiver is gone.
    ///
    /// # Cancellation
    /// Unwinds if an interrupt is due while it waits; the message is then dropped and was not sent.
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        self.channel.send(value)
    }

    /// Queues a message if there is room now.
    ///
    /// # Errors
    /// The message if there is no room or no receiver.
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        self.channel.try_send(value)
    }
}

/// The receiving side of a channel.
pub struct Receiver<T> {
    channel: Arc<Channel<T>>,
    /// As in std: one receiver, in one place.
    not_sync: PhantomData<Cell<()>>,
}

impl<T> Receiver<T> {
    /// Waits for a message.
    ///
    /// # Errors
    /// When the channel is empty and all senders are gone.
    ///
    /// # Cancellation
    /// Unwinds if an interrupt is due while it waits; no message is lost.
    pub fn recv(&self) -> Result<T, RecvError> {
        self.channel.recv()
    }

    /// A message if there is one now.
    ///
    /// # Errors
    /// Whether the channel is empty or also disconnected.
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        self.channel.try_recv()
    }

    /// Receives until all senders are gone.
    pub fn iter(&self) -> impl Iterator<Item = T> + '_ {
        std::iter::from_fn(|| self.recv().ok())
    }

    /// Receives what is there now.
    pub fn try_iter(&self) -> impl Iterator<Item = T> + '_ {
        std::iter::from_fn(|| self.try_recv().ok())
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut inner = self.channel.lock();
        inner.receiver = false;
        // The message of a rendezvous goes back to its sender; all others end here.
        let undelivered =
            if self.channel.capacity == Some(0) { VecDeque::new() } else { std::mem::take(&mut inner.queue) };
        let mut wake = Vec::new();
        while let Some(w) = inner.senders_waiting.take_first() {
            wake.push(w);
        }
        while let Some(w) = inner.handing_over.take_first() {
            wake.push(w);
        }
        drop(inner);
        wake.into_iter().for_each(Taken::wake);
        drop(undelivered);
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}
