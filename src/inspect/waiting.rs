//! What a task waits for, copied: everything behind the wait reason's pointers, while it is known to be there.
//!
//! In the window the task is parked in a wait that borrows the object, and its frames stand still; a few loads, and at
//! most one short text, are taken from there. What is read of another task than the one that is held (its name, its
//! read locks) has a window of its own.

use std::panic::Location;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::sweep::{cell_of, cells};
use crate::observe::{
    Choices, Counted, Detail, MOST_CHOICES, MOST_READS, Object, Traffic, WaitKind, WaitReason, Worded,
};
use crate::scheduler;
use crate::task::state::Life;
use crate::task::{TaskCell, TaskLocal};

/// The longest text that is copied.
const LONGEST_TEXT: usize = 253;
/// As deep are time limits followed.
const MOST_SCOPES: usize = 32;

/// What was copied of an [`Object`] and of what begins with one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) address: usize,
    /// See [`Object::owner`].
    pub(super) owner: u64,
    /// See [`Object::since`].
    pub(super) since: u64,
    pub(super) name: Option<&'static str>,
    pub(super) site: &'static Location<'static>,
    pub(super) state: State,
}

/// What an object has beside its holder.
#[derive(Debug, Clone, Copy)]
pub(super) enum State {
    Plain,
    /// Readers of a read-write lock.
    Readers(u32),
    /// Of how many, 0 for no such number.
    Count(usize, usize),
    Channel(Channel),
}

/// A channel's numbers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Channel {
    pub(super) length: usize,
    pub(super) capacity: Option<usize>,
    pub(super) senders: u32,
    pub(super) receivers: u32,
    /// Who received last, and when; 0: nobody, not known.
    pub(super) received: (u64, u64),
}

impl Seen {
    fn plain(o: &Object) -> Seen {
        Seen {
            address: std::ptr::from_ref(o).addr(),
            owner: o.owner(),
            since: o.since(),
            name: o.name(),
            site: o.site(),
            state: State::Plain,
        }
    }

    /// Of a channel that is there.
    pub(super) fn channel(t: &Traffic) -> Seen {
        let state = State::Channel(Channel {
            length: t.length(),
            capacity: t.capacity(),
            senders: t.senders(),
            receivers: t.receivers(),
            received: (t.received.who(), t.received.at()),
        });
        Seen { state, ..Seen::plain(&t.object) }
    }

    /// # Safety
    /// The task whose reason this is stays parked in its wait meanwhile.
    unsafe fn of(wait: WaitReason) -> Seen {
        let at = wait.detail as usize;
        // SAFETY: the waiter borrows the object; which one its kind has is said with the kind.
        unsafe {
            match wait.kind {
                WaitKind::Send | WaitKind::Recv => Seen::channel(&*std::ptr::with_exposed_provenance::<Traffic>(at)),
                WaitKind::ReadLock | WaitKind::WriteLock => {
                    let w = &*std::ptr::with_exposed_provenance::<Worded>(at);
                    Seen { state: State::Readers(w.readers()), ..Seen::plain(&w.object) }
                }
                WaitKind::Semaphore | WaitKind::Barrier | WaitKind::WaitGroup | WaitKind::Future => {
                    let c = &*std::ptr::with_exposed_provenance::<Counted>(at);
                    Seen { state: State::Count(c.number(), c.wanted()), ..Seen::plain(&c.object) }
                }
                _ => Seen::plain(&*std::ptr::with_exposed_provenance::<Object>(at)),
            }
        }
    }
}

/// See the module's head.
#[derive(Debug)]
pub(super) struct Waiting {
    /// What is waited for, where that is an object.
    pub(super) object: Option<Seen>,
    /// Of a wait for several things at once: each of the first of them, with its object where it has one. Of a wait for a
    /// future: the descriptor that its last poll found not ready.
    pub(super) choices: [Option<(WaitReason, Option<Seen>)>; MOST_CHOICES],
    /// The mutex that a wait on a condition variable will take again.
    pub(super) with: Option<Seen>,
    /// What is waited for, where that is a text; cut. Has its room from the start: nothing is allocated in a window.
    text: String,
    has_text: bool,
    /// Permits wanted, children that still run, the call on a file.
    pub(super) number: u64,
    /// When the wait ends by itself, on the timer clock of the task's runtime; 0: never.
    pub(super) until: u64,
    /// The nearest deadline of all time limits around it.
    pub(super) timeout: Option<Instant>,
    /// Addresses of the read-write locks that the task holds for reading; 0: none.
    pub(super) reads: [usize; MOST_READS],
    /// Whose child in a scope the task is: the detail of that scope's wait.
    pub(super) scope: usize,
}

impl Waiting {
    pub(super) fn new() -> Waiting {
        Waiting::nothing(String::with_capacity(LONGEST_TEXT))
    }

    /// Nothing is known. The text is room for one.
    fn nothing(text: String) -> Waiting {
        Waiting {
            object: None,
            choices: [None; MOST_CHOICES],
            with: None,
            text,
            has_text: false,
            number: 0,
            until: 0,
            timeout: None,
            reads: [0; MOST_READS],
            scope: 0,
        }
    }

    /// In the window, so what is large is left alone where it is empty.
    pub(super) fn clear(&mut self) {
        let Waiting { object, choices, with, text, has_text, number, until, timeout, reads, scope } = self;
        (*object, *with, *timeout) = (None, None, None);
        if choices.iter().any(Option::is_some) {
            *choices = [None; MOST_CHOICES];
        }
        text.clear();
        (*has_text, *number, *until, *scope) = (false, 0, 0, 0);
        *reads = [0; MOST_READS];
    }

    /// The text that is waited for.
    pub(super) fn text(&self) -> Option<&str> {
        self.has_text.then_some(&self.text)
    }

    /// Of a task that does not run, inside its window.
    ///
    /// # Safety
    /// All is clear, and the window holds: the task, whose record `local` is, does not run. If `parked`, it is in the wait `wait`.
    pub(super) unsafe fn copy(&mut self, wait: WaitReason, parked: bool, local: Option<&TaskLocal>) {
        let Some(local) = local else { return };
        self.reads = local.held_reads.addresses();
        self.scope = local.scope.get();
        if !parked {
            return;
        }
        self.until = local.wait_until.get();
        // SAFETY: by the caller's promise.
        unsafe {
            self.timeout = nearest_deadline(local);
            match wait.kind.detail() {
                Detail::Object => self.object = Some(Seen::of(wait)),
                Detail::Text => {
                    let text: &str = *std::ptr::with_exposed_provenance::<&str>(wait.detail as usize);
                    self.text.push_str(cut(text));
                    self.has_text = true;
                }
                Detail::Choices => {
                    let choices = &*std::ptr::with_exposed_provenance::<Choices>(wait.detail as usize);
                    self.number = choices.number as u64;
                    for (place, reason) in self.choices.iter_mut().zip(choices.reasons) {
                        let seen = |r: WaitReason| r.kind.has_object().then(|| Seen::of(r));
                        *place = reason.map(|r| (r, seen(r)));
                    }
                }
                Detail::Number => {}
            }
            match wait.kind {
                WaitKind::Condvar if local.wait_extra.get() != 0 => {
                    self.with = Some(Seen::of(WaitReason::new(WaitKind::Lock, local.wait_extra.get())));
                }
                WaitKind::Semaphore | WaitKind::File => self.number = local.wait_extra.get(),
                WaitKind::Child if local.wait_extra.get() != 0 => {
                    let text: &str = *std::ptr::with_exposed_provenance::<&str>(local.wait_extra.get() as usize);
                    self.text.push_str(cut(text));
                    self.has_text = true;
                }
                WaitKind::Future => {
                    self.choices[0] = WaitReason::from_future(local.wait_extra.get()).map(|reason| (reason, None));
                }
                WaitKind::Scope => {
                    let left = std::ptr::with_exposed_provenance::<AtomicUsize>(wait.detail as usize);
                    self.number = (*left).load(Ordering::Relaxed) as u64;
                }
                _ => {}
            }
        }
    }
}

/// The nearest deadline that can end a wait: not of scopes outside of a shield.
///
/// # Safety
/// The task does not run.
unsafe fn nearest_deadline(local: &TaskLocal) -> Option<Instant> {
    let (shields, mut nearest) = (local.shields.get(), None);
    let mut scope = local.scopes.get();
    for _ in 0..MOST_SCOPES {
        // SAFETY: scopes are linked only while their frames live on the task's stack.
        let Some(s) = (unsafe { scope.as_ref() }) else { break };
        if s.shields >= shields {
            nearest = [nearest, s.deadline].into_iter().flatten().min();
        }
        scope = s.outer.get();
    }
    nearest
}

/// The name of a task, if there is such a task and it has one; cut. Looks through all tasks for it.
pub(crate) fn name_of(id: u64) -> Option<String> {
    let cell = cell_of(id)?;
    let mut name = String::with_capacity(LONGEST_TEXT);
    let window = cell.enter().filter(|window| window.id() == id)?;
    if let Some(text) = window.label().and_then(|l| l.name.as_deref()) {
        name.push_str(cut(text));
    }
    drop(window);
    (!name.is_empty()).then_some(name)
}

/// As much of it as is copied.
fn cut(text: &str) -> &str {
    let end = (0..=LONGEST_TEXT.min(text.len())).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
    &text[..end]
}

/// Calls `found` with each task that does not run and the locks that it holds for reading.
pub(super) fn readers(mut found: impl FnMut(u64, [usize; MOST_READS])) {
    for cell in cells() {
        let word = cell.state.snapshot();
        if word.id() != 0
            && matches!(word.life(), Life::Active | Life::Parked)
            && let Some((id, reads)) = reads_of(cell)
            && reads[0] != 0
        {
            found(id, reads);
        }
    }
}

fn reads_of(cell: &TaskCell) -> Option<(u64, [usize; MOST_READS])> {
    let window = cell.enter()?;
    let (id, word) = (window.id(), window.word());
    let owner = scheduler::shared::worker_at(cell.owner.load(Ordering::Relaxed));
    let runs = || owner.is_some_and(|w| std::ptr::eq(w.current.load(Ordering::SeqCst), cell));
    let started = matches!(word.life(), Life::Active | Life::Parked);
    let reads = (started && !runs() && window.holds()).then(|| {
        let local = cell.local.load(Ordering::Relaxed);
        // SAFETY: a started task's record lives in its first frame, and the task cannot run in the window.
        unsafe { local.as_ref() }.map(|l| l.held_reads.addresses())
    });
    drop(window);
    Some((id, reads??))
}
