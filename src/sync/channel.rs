//! What is under every channel of [`mpsc`](super::mpsc) and [`mpmc`](super::mpmc): a queue, a line of senders and a line
//! of receivers under one short lock.
//!
//! A message goes straight to the receiver that has waited longest, else into the queue; a receiver that takes from a
//! full queue moves the message of the sender that has waited longest up. So nobody is woken in vain, newcomers do not
//! overtake, and there is no turn that could be lost: who is served has the message (or has got rid of it), and who
//! leaves its line first was not served (hazard 18).
//!
//! Invariants, under the lock: if receivers wait, the queue is empty and no sender waits; if senders wait, the queue is
//! full. No message is dropped and nobody is woken under the lock, because both run other code. Must not know which
//! handles there are.

use std::any::type_name;
use std::collections::VecDeque;
use std::mem::{self, ManuallyDrop};
use std::sync::Arc;
use std::sync::mpsc::{RecvError, RecvTimeoutError, TryRecvError, TrySendError};
use std::time::{Duration, Instant};

use super::live;
use super::ticket::{End, Line, Node, Ticket, Withdrawal};
use super::woven::{Call, Outcome, State};
use crate::observe::{Traffic, WaitKind, WaitReason};
use crate::scheduler::handover::{self, Caller, Waited};
use crate::sys::atomic::{Lock, LockGuard};

#[derive(Debug)]
pub(super) struct Inner<T> {
    queue: VecDeque<T>,
    senders: usize,
    receivers: usize,
    sending: Line<T>,
    receiving: Line<T>,
    /// When the clock, if the channel has one, gives its next message.
    next: Option<Instant>,
}

/// Whence messages come that nobody sends. Nobody is needed for it: whoever waits for one knows when it comes.
#[derive(Debug)]
pub(super) struct Clock<T> {
    /// `None`: one message in all.
    pub(super) period: Option<Duration>,
    /// The message that comes at that time.
    pub(super) message: fn(Instant) -> T,
}

/// See the module's head. It begins with one sender and one receiver.
#[derive(Debug)]
pub(super) struct Channel<T> {
    /// What the views see, written under the lock.
    shown: Traffic,
    /// `None`: unbounded. 0: every message goes from hand to hand.
    capacity: Option<usize>,
    /// Then there are no senders, but it is as if there were one.
    clock: Option<Clock<T>>,
    inner: Lock<Inner<T>>,
}

type Guard<'a, T> = LockGuard<'a, Inner<T>>;

/// Why a message was not sent.
#[derive(Debug)]
pub(super) enum Unsent<T> {
    Expired(T),
    Disconnected(T),
}

enum Offer<'a, T> {
    /// The queue has become longer by one.
    Queued,
    /// A receiver has it.
    HandedOver,
    /// Nobody waits for it and there is no room; still locked.
    Full(T, Guard<'a, T>),
    Disconnected(T),
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Side {
    Sending,
    Receiving,
}

/// How a wait in a line ended; the node is in no line any more.
enum Left {
    Ended(End),
    Expired,
    Interrupted,
}

impl<T> Channel<T> {
    #[track_caller]
    fn new(capacity: Option<usize>, name: Option<&'static str>) -> Channel<T> {
        Channel {
            shown: Traffic::new(capacity, name),
            capacity,
            clock: None,
            inner: Lock::new(Inner {
                queue: VecDeque::new(),
                senders: 1,
                receivers: 1,
                sending: Line::new(),
                receiving: Line::new(),
                next: None,
            }),
        }
    }

    /// A channel whose messages come from a clock, the first one at `next`.
    #[track_caller]
    pub(super) fn ticking(
        capacity: usize,
        name: &'static str,
        clock: Clock<T>,
        next: Option<Instant>,
    ) -> Arc<Channel<T>> {
        let mut channel = Channel::new(Some(capacity), Some(name));
        channel.clock = Some(clock);
        channel.lock().next = next;
        channel.shown.set_ends(0, 1);
        Channel::kept(channel)
    }

    /// A channel that views find until it goes.
    #[track_caller]
    pub(super) fn shared(capacity: Option<usize>, name: Option<&'static str>) -> Arc<Channel<T>> {
        Channel::kept(Channel::new(capacity, name))
    }

    fn kept(channel: Channel<T>) -> Arc<Channel<T>> {
        let channel = Arc::new(channel);
        // SAFETY: nobody moves it out of its `Arc`, and its end takes it out.
        unsafe { live::keep(&channel.shown) };
        channel
    }

    #[inline]
    pub(super) fn lock(&self) -> Guard<'_, T> {
        self.inner.lock()
    }

    /// Not inlined: for whoever is not in a hurry.
    #[inline(never)]
    fn offer<'a>(&self, inner: Guard<'a, T>, value: T, caller: Caller) -> Offer<'a, T> {
        self.offer_here(inner, value, caller)
    }

    #[inline(always)]
    fn offer_here<'a>(&self, mut inner: Guard<'a, T>, value: T, caller: Caller) -> Offer<'a, T> {
        if inner.receivers == 0 {
            return Offer::Disconnected(value);
        }
        match inner.receiving.give(value) {
            Ok(wake) => {
                self.shown.object.used(caller.user());
                drop(inner);
                wake.wake(caller);
                Offer::HandedOver
            }
            Err(value) if self.capacity.is_none_or(|c| inner.queue.len() < c) => {
                inner.queue.push_back(value);
                self.shown.object.used(caller.user());
                self.shown.set_length(inner.queue.len());
                Offer::Queued
            }
            Err(value) => Offer::Full(value, inner),
        }
    }

    /// Sends, waiting for room until `limit` at the latest; that is only asked for if there is something to wait for.
    #[inline]
    pub(super) fn send(&self, value: T, limit: impl FnOnce() -> Option<Instant>) -> Result<(), Unsent<T>> {
        if Call::Send.is_watched() {
            let outcome = |sent: &Result<(), Unsent<T>>| match sent {
                Ok(()) => Outcome::Done,
                Err(Unsent::Expired(_)) => Outcome::Failed("timed out"),
                Err(Unsent::Disconnected(_)) => Outcome::Failed("disconnected"),
            };
            return Call::Send.told(
                &self.shown.object,
                self.state(Side::Sending),
                || self.send_untold(value, limit),
                outcome,
                drop,
            );
        }
        self.send_untold(value, limit)
    }

    /// What a call of that side that is watched begins with.
    #[cold]
    fn state(&self, side: Side) -> State {
        let queued = self.shown.length();
        let busy = match side {
            Side::Sending => self.shown.capacity().is_some_and(|most| queued >= most),
            Side::Receiving => queued == 0 && self.shown.senders() > 0,
        };
        State::Messages { busy, queued }
    }

    #[inline(always)]
    fn send_untold(&self, value: T, limit: impl FnOnce() -> Option<Instant>) -> Result<(), Unsent<T>> {
        let caller = handover::caller();
        if self.capacity.is_some() {
            caller.checkpoint();
        }
        match self.offer_here(self.lock(), value, caller) {
            Offer::Queued | Offer::HandedOver => {
                if self.capacity.is_none() {
                    caller.went_on();
                }
                Ok(())
            }
            Offer::Disconnected(value) => Err(Unsent::Disconnected(value)),
            Offer::Full(value, inner) => self.send_slow(inner, value, limit(), caller),
        }
    }

    /// Right after a checkpoint.
    #[inline(never)]
    fn send_slow<'a>(
        &'a self,
        mut inner: Guard<'a, T>,
        mut value: T,
        deadline: Option<Instant>,
        caller: Caller,
    ) -> Result<(), Unsent<T>> {
        loop {
            inner = Self::before_wait(inner, caller);
            let ticket = Ticket::for_one_line(caller);
            let node = Node::new(&ticket, Some(value));
            let left = self.wait(inner, Side::Sending, &node, &ticket, deadline, caller);
            let slot = node.into_slot();
            value = match (left, slot) {
                (Left::Ended(End::Served), _) | (_, None) => {
                    self.has_sent(caller);
                    return Ok(());
                }
                (Left::Ended(End::Disconnected), Some(value)) => return Err(Unsent::Disconnected(value)),
                (Left::Expired, Some(value)) => return Err(Unsent::Expired(value)),
                (Left::Interrupted, Some(value)) => value,
            };
            caller.checkpoint();
            // It was not raised after all.
            match self.offer(self.lock(), value, caller) {
                Offer::Queued | Offer::HandedOver => return Ok(()),
                Offer::Disconnected(value) => return Err(Unsent::Disconnected(value)),
                Offer::Full(back, guard) => (value, inner) = (back, guard),
            }
        }
    }

    #[inline]
    pub(super) fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        if Call::TrySend.is_watched() {
            let outcome = |sent: &Result<(), TrySendError<T>>| match sent {
                Ok(()) => Outcome::Done,
                Err(TrySendError::Full(_)) => Outcome::Failed("full"),
                Err(TrySendError::Disconnected(_)) => Outcome::Failed("disconnected"),
            };
            return Call::TrySend.told(
                &self.shown.object,
                self.state(Side::Sending),
                || self.try_send_untold(value),
                outcome,
                drop,
            );
        }
        self.try_send_untold(value)
    }

    #[inline(always)]
    fn try_send_untold(&self, value: T) -> Result<(), TrySendError<T>> {
        let caller = handover::caller();
        match self.offer(self.lock(), value, caller) {
            Offer::Queued | Offer::HandedOver => {
                caller.went_on();
                Ok(())
            }
            Offer::Disconnected(value) => Err(TrySendError::Disconnected(value)),
            Offer::Full(value, inner) => {
                drop(inner);
                handover::polled_in_vain();
                Err(TrySendError::Full(value))
            }
        }
    }

    /// The next message, unlocked; still locked if there is none. Not inlined: for whoever is not in a hurry.
    #[inline(never)]
    fn take<'a>(&self, inner: Guard<'a, T>, caller: Caller) -> Result<T, Guard<'a, T>> {
        self.take_here(inner, caller)
    }

    #[inline(always)]
    fn take_here<'a>(&self, mut inner: Guard<'a, T>, caller: Caller) -> Result<T, Guard<'a, T>> {
        let (value, wake) = match (inner.queue.pop_front(), inner.sending.take()) {
            (Some(value), None) => (value, None),
            (Some(value), Some((next, wake))) => {
                inner.queue.push_back(next);
                (value, Some(wake))
            }
            (None, Some((value, wake))) => (value, Some(wake)),
            (None, None) if self.clock.is_some() => return self.take_tick(inner, caller),
            (None, None) => return Err(inner),
        };
        self.shown.received.set(caller.user());
        self.shown.set_length(inner.queue.len());
        drop(inner);
        if let Some(wake) = wake {
            wake.wake(caller);
        }
        Ok(value)
    }

    /// The message of the clock, if it is time. Of those that nobody came for in time one is kept: the channel
    /// holds one message.
    #[cold]
    fn take_tick<'a>(&self, mut inner: Guard<'a, T>, caller: Caller) -> Result<T, Guard<'a, T>> {
        let (Some(clock), Some(due)) = (&self.clock, inner.next) else { return Err(inner) };
        let now = Instant::now();
        if now < due {
            return Err(inner);
        }
        inner.next = clock.period.and_then(|period| match due.checked_add(period) {
            // Counted from when there was room again.
            Some(next) if next <= now => now.checked_add(period),
            next => next,
        });
        self.shown.received.set(caller.user());
        drop(inner);
        Ok((clock.message)(due))
    }

    /// When there will be a message that nobody sends.
    pub(super) fn next_tick(&self) -> Option<Instant> {
        self.clock.as_ref()?;
        self.lock().next
    }

    /// Receives, waiting until `limit` at the latest; that is only asked for if there is something to wait for.
    #[inline]
    pub(super) fn recv(&self, limit: impl FnOnce() -> Option<Instant>) -> Result<T, RecvTimeoutError> {
        if Call::Recv.is_watched() {
            let outcome = |received: &Result<T, RecvTimeoutError>| match received {
                Ok(_) => Outcome::Message(type_name::<T>()),
                Err(RecvTimeoutError::Timeout) => Outcome::Failed("timed out"),
                Err(RecvTimeoutError::Disconnected) => Outcome::Failed("disconnected"),
            };
            return Call::Recv.told(
                &self.shown.object,
                self.state(Side::Receiving),
                || self.recv_untold(limit),
                outcome,
                drop,
            );
        }
        self.recv_untold(limit)
    }

    #[inline(always)]
    fn recv_untold(&self, limit: impl FnOnce() -> Option<Instant>) -> Result<T, RecvTimeoutError> {
        // Also where a message is there: a steady stream of them must not keep a task from its end.
        let caller = handover::caller();
        caller.checkpoint();
        match self.take_here(self.lock(), caller) {
            Ok(value) => Ok(value),
            Err(inner) => self.recv_slow(inner, limit(), caller),
        }
    }

    /// Right after a checkpoint.
    #[inline(never)]
    fn recv_slow<'a>(
        &'a self,
        mut inner: Guard<'a, T>,
        deadline: Option<Instant>,
        caller: Caller,
    ) -> Result<T, RecvTimeoutError> {
        loop {
            if inner.senders == 0 {
                return Err(RecvTimeoutError::Disconnected);
            }
            inner = Self::before_wait(inner, caller);
            let ticket = Ticket::for_one_line(caller);
            let node = Node::new(&ticket, None);
            let until = match inner.next {
                None => deadline,
                Some(next) => Some(deadline.map_or(next, |d| d.min(next))),
            };
            match self.wait(inner, Side::Receiving, &node, &ticket, until, caller) {
                Left::Ended(End::Served) => {
                    self.has_received(caller);
                    return Ok(node.into_slot().expect("whoever serves fills the slot"));
                }
                Left::Ended(End::Disconnected) => return Err(RecvTimeoutError::Disconnected),
                Left::Expired if until == deadline => {
                    // Perhaps the clock's message comes at the very end of the time.
                    let last = self.clock.as_ref().and_then(|_| self.take(self.lock(), caller).ok());
                    return last.ok_or(RecvTimeoutError::Timeout);
                }
                // What the clock has comes before an interrupt of the same moment.
                Left::Expired => {
                    if let Ok(value) = self.take(self.lock(), caller) {
                        return Ok(value);
                    }
                }
                Left::Interrupted => {}
            }
            caller.checkpoint();
            // The clock's message went to another, or the interrupt was not raised after all.
            match self.take(self.lock(), caller) {
                Ok(value) => return Ok(value),
                Err(guard) => inner = guard,
            }
        }
    }

    #[inline]
    pub(super) fn try_recv(&self) -> Result<T, TryRecvError> {
        if Call::TryRecv.is_watched() {
            let outcome = |received: &Result<T, TryRecvError>| match received {
                Ok(_) => Outcome::Message(type_name::<T>()),
                Err(TryRecvError::Empty) => Outcome::Failed("empty"),
                Err(TryRecvError::Disconnected) => Outcome::Failed("disconnected"),
            };
            return Call::TryRecv.told(
                &self.shown.object,
                self.state(Side::Receiving),
                || self.try_recv_untold(),
                outcome,
                drop,
            );
        }
        self.try_recv_untold()
    }

    #[inline(always)]
    fn try_recv_untold(&self) -> Result<T, TryRecvError> {
        let caller = handover::caller();
        match self.take(self.lock(), caller) {
            Ok(value) => {
                caller.went_on();
                Ok(value)
            }
            Err(inner) if inner.senders == 0 => Err(TryRecvError::Disconnected),
            Err(inner) => {
                drop(inner);
                handover::polled_in_vain();
                Err(TryRecvError::Empty)
            }
        }
    }

    /// The park would panic inside `no_switch`, but then the node would be in the line already.
    #[inline(always)]
    fn before_wait<'a>(inner: Guard<'a, T>, caller: Caller) -> Guard<'a, T> {
        if caller.switch_refused() {
            drop(inner);
            handover::refuse();
        }
        inner
    }

    /// Stands in line until somebody ends it or it is time to leave. What was handed over is never left behind: an
    /// interrupt or a deadline that comes second waits for the next wait. After [`before_wait`](Channel::before_wait).
    #[inline(always)]
    fn wait(
        &self,
        mut inner: Guard<'_, T>,
        side: Side,
        node: &Node<T>,
        ticket: &Ticket,
        deadline: Option<Instant>,
        caller: Caller,
    ) -> Left {
        // SAFETY: `queued` borrows node and ticket, and takes the node out when dropped; it is forgotten only at the end.
        unsafe { inner.line(side).push_back(node) };
        drop(inner);
        let queued = Queued { channel: self, side, node };
        let waited = caller.wait_revocably(self.reason(side), deadline, || ticket.end().is_some());
        let queued = ManuallyDrop::new(queued);
        match (waited, ticket.end()) {
            (_, Some(end)) => Left::Ended(end),
            (waited, None) => match (queued.withdraw(), waited) {
                (Withdrawal::TooLate(end), _) => Left::Ended(end),
                (Withdrawal::Left, Waited::Expired) => Left::Expired,
                (Withdrawal::Left, _) => Left::Interrupted,
            },
        }
    }

    /// What whoever stands on that side waits for.
    pub(super) fn reason(&self, side: Side) -> WaitReason {
        let kind = match side {
            Side::Sending => WaitKind::Send,
            Side::Receiving => WaitKind::Recv,
        };
        WaitReason::traffic(kind, &self.shown)
    }

    /// A message, or the news that there will be none; `None`: neither now.
    pub(super) fn recv_now(&self) -> Option<Result<T, RecvError>> {
        let received = match self.take(self.lock(), handover::caller()) {
            Ok(value) => Ok(value),
            Err(inner) if inner.senders == 0 => Err(RecvError),
            Err(_) => return None,
        };
        self.chosen_to_receive(&received);
        Some(received)
    }

    /// A choice among several waits has ended with this.
    pub(super) fn chosen_to_receive(&self, received: &Result<T, RecvError>) {
        if Call::Recv.is_watched() {
            let outcome = match received {
                Ok(_) => Outcome::Message(type_name::<T>()),
                Err(RecvError) => Outcome::Failed("disconnected"),
            };
            Call::Recv.was_done(&self.shown.object, self.state(Side::Receiving), outcome);
        }
    }

    /// As [`chosen_to_receive`](Channel::chosen_to_receive).
    pub(super) fn chosen_to_send(&self, sent: bool) {
        if Call::Send.is_watched() {
            let outcome = if sent { Outcome::Done } else { Outcome::Failed("disconnected") };
            Call::Send.was_done(&self.shown.object, self.state(Side::Sending), outcome);
        }
    }

    /// Sends, or gives the message back because nobody will receive it; the outer error: neither now.
    pub(super) fn send_now(&self, value: T) -> Result<Result<(), T>, T> {
        let sent = match self.offer(self.lock(), value, handover::caller()) {
            Offer::Queued | Offer::HandedOver => Ok(()),
            Offer::Disconnected(value) => Err(value),
            Offer::Full(value, inner) => {
                drop(inner);
                return Err(value);
            }
        };
        self.chosen_to_send(sent.is_ok());
        Ok(sent)
    }

    /// Whether a message would be taken now, by somebody else than the waiter with that ticket.
    pub(super) fn has_room(&self, inner: &Inner<T>, own: &Ticket) -> bool {
        let fits = self.capacity.is_none_or(|c| inner.queue.len() < c);
        fits || inner.receivers == 0 || inner.receiving.has_other(own)
    }

    /// The running task or thread was given a message in a line.
    #[inline(always)]
    pub(super) fn has_received(&self, caller: Caller) {
        self.shown.received.set(caller.user());
    }

    /// The running task or thread got rid of a message in a line.
    #[inline(always)]
    pub(super) fn has_sent(&self, caller: Caller) {
        self.shown.object.used(caller.user());
    }

    pub(super) fn add_sender(&self) {
        let mut inner = self.lock();
        inner.senders += 1;
        self.shown.set_ends(inner.senders, inner.receivers);
    }

    pub(super) fn add_receiver(&self) {
        let mut inner = self.lock();
        inner.receivers += 1;
        self.show_ends(&inner);
    }

    pub(super) fn remove_sender(&self) {
        let mut inner = self.lock();
        inner.senders -= 1;
        self.shown.set_ends(inner.senders, inner.receivers);
        if inner.senders == 0 {
            self.dismiss_all(inner, Side::Receiving);
            self.tell_of_close("last sender");
        }
    }

    /// With the last receiver the messages end, on this task or thread.
    pub(super) fn remove_receiver(&self) {
        let mut inner = self.lock();
        inner.receivers -= 1;
        self.show_ends(&inner);
        if inner.receivers == 0 {
            self.shown.set_length(0);
            let undelivered = mem::take(&mut inner.queue);
            self.dismiss_all(inner, Side::Sending);
            drop(undelivered);
            self.tell_of_close("last receiver");
        }
    }

    fn tell_of_close(&self, by: &'static str) {
        if Call::Close.is_watched() {
            Call::Close.was_done(&self.shown.object, State::End(by), Outcome::Done);
        }
    }

    /// One after the other: what their wake-ups need is in their frames, not in a list that would have to be allocated.
    /// Nobody comes to the line any more.
    fn dismiss_all<'a>(&'a self, mut inner: Guard<'a, T>, side: Side) {
        while let Some(wake) = inner.line(side).dismiss() {
            drop(inner);
            wake.wake(handover::caller());
            inner = self.lock();
        }
    }

    fn show_ends(&self, inner: &Inner<T>) {
        let senders = if self.clock.is_some() { 0 } else { inner.senders };
        self.shown.set_ends(senders, inner.receivers);
    }

    pub(super) fn len(&self) -> usize {
        let inner = self.lock();
        match (&self.clock, inner.next) {
            (Some(_), Some(next)) => usize::from(Instant::now() >= next),
            _ => inner.queue.len(),
        }
    }

    pub(super) fn capacity(&self) -> Option<usize> {
        self.capacity
    }

    pub(super) fn is_full(&self) -> bool {
        self.capacity.is_some_and(|c| self.len() >= c)
    }
}

impl<T> Drop for Channel<T> {
    fn drop(&mut self) {
        live::take_out(&self.shown);
    }
}

impl<T> Inner<T> {
    /// Whether there is something to receive, from somebody else than the waiter with that ticket.
    pub(super) fn has_message(&self, own: &Ticket) -> bool {
        !self.queue.is_empty() || self.senders == 0 || self.sending.has_other(own)
    }

    pub(super) fn line(&mut self, side: Side) -> &mut Line<T> {
        match side {
            Side::Sending => &mut self.sending,
            Side::Receiving => &mut self.receiving,
        }
    }
}

/// Takes a node out of its line when its frame is left.
struct Queued<'a, T> {
    channel: &'a Channel<T>,
    side: Side,
    node: &'a Node<T>,
}

impl<T> Queued<'_, T> {
    fn withdraw(&self) -> Withdrawal {
        self.channel.lock().line(self.side).withdraw(self.node)
    }
}

impl<T> Drop for Queued<'_, T> {
    fn drop(&mut self) {
        // Only if the wait itself unwinds, which it never does.
        let _ = self.withdraw();
    }
}
