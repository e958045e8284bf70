//! One wait for several channels at once: what `select` has of a channel.
//!
//! The waiter has one [`Ticket`] and a node in each line that it stands in. Whoever serves it first has the ticket, and the
//! other lines find its node without one and drop it. So a message is taken by the arm that ends the wait and by no other, and a
//! message that was to be sent stays with its arm if that was not the one.
//!
//! Invariants: a node stays where it is from `enlist` to `leave`. Before a waiter tries anything itself it has left every line:
//! two choices that wait for one another can never both take.

use std::marker::PhantomPinned;
use std::sync::mpsc::{RecvError, SendError};
use std::time::Instant;

use super::channel::{Channel, Side};
use super::ticket::{End, Node, Ticket};
use crate::observe::WaitReason;
use crate::scheduler::handover;
use crate::sys::atomic::LockGuard;

/// One wait, of the running task or thread.
#[derive(Debug)]
pub(crate) struct Choice(Ticket);

impl Choice {
    pub(crate) fn new() -> Choice {
        Choice(Ticket::new())
    }

    /// Whether one of its lines has served it.
    pub(crate) fn is_over(&self) -> bool {
        self.0.end().is_some()
    }
}

/// A place in the line of those who receive.
#[derive(Debug)]
pub(crate) struct Receiving<'a, T> {
    channel: &'a Channel<T>,
    node: Option<Node<T>>,
    /// The line leads to the node while others hold the whole by `&mut`.
    _pinned: PhantomPinned,
}

impl<'a, T> Receiving<'a, T> {
    pub(super) fn new(channel: &'a Channel<T>) -> Receiving<'a, T> {
        Receiving { channel, node: None, _pinned: PhantomPinned }
    }

    /// A message, or the news that there will be none; `None`: neither now.
    pub(crate) fn attempt(&self) -> Option<Result<T, RecvError>> {
        self.channel.recv_now()
    }

    /// Stands in line; false if there is something now.
    ///
    /// # Safety
    /// The choice and this stay where they are until [`leave`](Receiving::leave) was called.
    pub(crate) unsafe fn enlist(&mut self, choice: &Choice) -> bool {
        let mut inner = self.channel.lock();
        if inner.has_message(&choice.0) {
            return false;
        }
        let node = self.node.insert(Node::new(&choice.0, None));
        // SAFETY: by the caller's promise.
        unsafe { inner.line(Side::Receiving).push_back(node) };
        true
    }

    /// Leaves the line; what it was given, if this was the line that served it.
    pub(crate) fn leave(&mut self) -> Option<Result<T, RecvError>> {
        let served = leave(self.channel, Side::Receiving, self.node.as_ref()?);
        let node = self.node.take()?;
        let received = match served? {
            End::Served => {
                self.channel.has_received(handover::caller());
                Ok(node.into_slot().expect("whoever serves fills the slot"))
            }
            End::Disconnected => Err(RecvError),
        };
        self.channel.chosen_to_receive(&received);
        Some(received)
    }

    /// When there will be a message without anybody who sends it.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.channel.next_tick()
    }

    pub(crate) fn reason(&self) -> WaitReason {
        self.channel.reason(Side::Receiving)
    }
}

impl<T> Drop for Receiving<'_, T> {
    fn drop(&mut self) {
        let _ = self.leave();
    }
}

/// A place in the line of those who send, and the message.
#[derive(Debug)]
pub(crate) struct Sending<'a, T> {
    channel: &'a Channel<T>,
    /// `None`: in the node, or sent.
    value: Option<T>,
    node: Option<Node<T>>,
    _pinned: PhantomPinned,
}

impl<'a, T> Sending<'a, T> {
    pub(super) fn new(channel: &'a Channel<T>, value: T) -> Sending<'a, T> {
        Sending { channel, value: Some(value), node: None, _pinned: PhantomPinned }
    }

    /// Sends if there is room, or says that nobody will receive; `None`: neither now.
    pub(crate) fn attempt(&mut self) -> Option<Result<(), SendError<T>>> {
        match self.channel.send_now(self.value.take()?) {
            Ok(result) => Some(result.map_err(SendError)),
            Err(value) => {
                self.value = Some(value);
                None
            }
        }
    }

    /// As of [`Receiving`].
    ///
    /// # Safety
    /// As of [`Receiving`].
    pub(crate) unsafe fn enlist(&mut self, choice: &Choice) -> bool {
        let mut inner = self.channel.lock();
        if self.channel.has_room(&inner, &choice.0) {
            return false;
        }
        let node = self.node.insert(Node::new(&choice.0, self.value.take()));
        // SAFETY: by the caller's promise.
        unsafe { inner.line(Side::Sending).push_back(node) };
        true
    }

    /// As of [`Receiving`]. The message is here again, if it was not sent.
    pub(crate) fn leave(&mut self) -> Option<Result<(), SendError<T>>> {
        let served = leave(self.channel, Side::Sending, self.node.as_ref()?);
        let value = self.node.take()?.into_slot();
        let sent = match (served, value) {
            (Some(End::Disconnected), Some(value)) => Err(SendError(value)),
            (Some(_), _) => {
                self.channel.has_sent(handover::caller());
                Ok(())
            }
            (None, value) => {
                self.value = value;
                return None;
            }
        };
        self.channel.chosen_to_send(sent.is_ok());
        Some(sent)
    }

    /// The message, if it was not sent.
    pub(crate) fn into_value(mut self) -> Option<T> {
        self.value.take()
    }

    pub(crate) fn reason(&self) -> WaitReason {
        self.channel.reason(Side::Sending)
    }
}

impl<T> Drop for Sending<'_, T> {
    fn drop(&mut self) {
        let _ = self.leave();
    }
}

/// How that line served the waiter, if it did.
fn leave<T>(channel: &Channel<T>, side: Side, node: &Node<T>) -> Option<End> {
    let mut inner: LockGuard<'_, _> = channel.lock();
    let _ = inner.line(side).withdraw(node);
    node.served()
}

/// Where [`select`](mod@crate::select) can receive from: the receivers of [`mpmc`](super::mpmc) and [`mpsc`](super::mpsc), and references
/// to them.
pub trait Receives<T> {
    #[doc(hidden)]
    fn end(&self) -> ReceivingEnd<'_, T>;
}

/// Where [`select`](mod@crate::select) can send to: the senders of [`mpmc`](super::mpmc) and [`mpsc`](super::mpsc), and references to
/// them.
pub trait Sends<T> {
    #[doc(hidden)]
    fn end(&self) -> SendingEnd<'_, T>;
}

/// A receiver's channel; nobody else's business.
#[doc(hidden)]
#[derive(Debug)]
pub struct ReceivingEnd<'a, T>(pub(super) &'a Channel<T>);

/// A sender's channel; nobody else's business.
#[doc(hidden)]
#[derive(Debug)]
pub struct SendingEnd<'a, T>(pub(super) &'a Channel<T>);

impl<'a, T> ReceivingEnd<'a, T> {
    pub(crate) fn place(self) -> Receiving<'a, T> {
        Receiving::new(self.0)
    }
}

impl<'a, T> SendingEnd<'a, T> {
    pub(crate) fn place(self, value: T) -> Sending<'a, T> {
        Sending::new(self.0, value)
    }
}

impl<T, R: Receives<T> + ?Sized> Receives<T> for &R {
    fn end(&self) -> ReceivingEnd<'_, T> {
        (**self).end()
    }
}

impl<T, S: Sends<T> + ?Sized> Sends<T> for &S {
    fn end(&self) -> SendingEnd<'_, T> {
        (**self).end()
    }
}

impl<T> Receives<T> for super::mpmc::Receiver<T> {
    fn end(&self) -> ReceivingEnd<'_, T> {
        ReceivingEnd(self.channel())
    }
}

impl<T> Receives<T> for super::mpsc::Receiver<T> {
    fn end(&self) -> ReceivingEnd<'_, T> {
        ReceivingEnd(self.channel())
    }
}

impl<T> Sends<T> for super::mpmc::Sender<T> {
    fn end(&self) -> SendingEnd<'_, T> {
        SendingEnd(self.channel())
    }
}

impl<T> Sends<T> for super::mpsc::Sender<T> {
    fn end(&self) -> SendingEnd<'_, T> {
        SendingEnd(self.channel())
    }
}

impl<T> Sends<T> for super::mpsc::SyncSender<T> {
    fn end(&self) -> SendingEnd<'_, T> {
        SendingEnd(self.channel())
    }
}
