//! Why a task is parked: a kind and one word of detail, resolved to text only when somebody asks.
//!
//! The kinds are an open table: what this crate's core brings is written here, later modules add their own with
//! [`WaitKind::register`] and need not be known to any view.

#![forbid(unsafe_code)]

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Counted, Object, Traffic, Worded};

/// What the detail of a wait reason is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Detail {
    /// A number, or nothing.
    Number,
    /// The address of an [`Object`], or of what begins with one. Valid while the task is parked, because the waiter borrows
    /// what it waits for.
    Object,
    /// The address of a `&str` that the waiting frames keep.
    Text,
    /// The address of [`Choices`] that the waiting frames keep.
    Choices,
}

/// So many of the things that one wait is for are shown.
pub(crate) const MOST_CHOICES: usize = 8;

/// Several things that a task waits for at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Choices {
    /// How many there are, points in time included.
    pub(crate) number: usize,
    /// The first of them, none among them that has choices itself.
    pub(crate) reasons: [Option<WaitReason>; MOST_CHOICES],
}

impl Choices {
    pub(crate) const fn new(number: usize) -> Choices {
        Choices { number, reasons: [None; MOST_CHOICES] }
    }

    /// One more thing that is waited for.
    #[cfg(not(loom))]
    pub(crate) fn add(&mut self, reason: Option<WaitReason>) {
        if let Some(place) = self.reasons.iter_mut().find(|r| r.is_none()) {
            *place = reason.filter(|r| r.kind != WaitKind::Select);
        }
    }
}

/// How the views speak of a kind.
#[derive(Debug)]
pub(crate) struct WaitWords {
    /// The word, or two.
    pub(crate) word: &'static str,
    pub(crate) detail: Detail,
    /// Writes what stands behind the word, with a blank before it; called outside of every window. `None`: nothing for a
    /// number, the name and place of an object, a text in quotes.
    pub(crate) describe: Option<fn(detail: u64, out: &mut dyn fmt::Write) -> fmt::Result>,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $word:literal $detail:ident;)* [$($later:ident)*]) => {
        /// What a parked task waits for. The meaning of the detail word stands with each kind.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub(crate) enum WaitKind {
            $($(#[$doc])* $name,)*
            $(#[doc = "For [`WaitKind::register`]."] $later,)*
        }

        static WORDS: &[WaitWords] =
            &[$(WaitWords { word: $word, detail: Detail::$detail, describe: None }),*];

        /// Every kind at its number.
        static KINDS: &[WaitKind] = &[$(WaitKind::$name,)* $(WaitKind::$later),*];
    };
}

kinds! {
    /// Not said.
    None = "" Number;
    /// The user's `park`; no detail.
    Park = "park" Number;
    /// A sleep; detail: the deadline in nanoseconds of the runtime's timer clock.
    Sleep = "sleep" Number;
    /// Readable data; detail: the descriptor and which socket that is, see [`WaitReason::descriptor`].
    Read = "read" Number;
    /// Room to write; detail: as of `Read`.
    Write = "write" Number;
    /// A connection to accept; detail: as of `Read`.
    Accept = "accept" Number;
    /// A connection to be established; detail: as of `Read`.
    Connect = "connect" Number;
    /// A mutex.
    Lock = "lock" Object;
    /// Room in a channel: a [`Traffic`].
    Send = "send" Object;
    /// A message: a [`Traffic`].
    Recv = "recv" Object;
    /// The message of a channel for one.
    Oneshot = "recv oneshot" Object;
    /// The end of a task; detail: its id.
    Join = "join" Number;
    /// The end of a scope's children; detail: the address of their number, an `AtomicUsize` that lives as long as the wait.
    /// Each child has the same address in its `TaskLocal`.
    Scope = "scope" Number;
    /// The end of the runtime.
    EventLoop = "event_loop" Number;
    /// A stack: memory was refused and the start is retried; detail: the OS error.
    Stack = "waiting for a stack" Number;
    /// Shared access to a read-write lock: a [`Worded`].
    ReadLock = "read lock" Object;
    /// Exclusive access to a read-write lock: a [`Worded`].
    WriteLock = "write lock" Object;
    /// A notification of a condition variable. Extra: the address of the mutex's [`Object`].
    Condvar = "condvar" Object;
    /// Permits of a semaphore: a [`Counted`]. Extra: how many are wanted.
    Semaphore = "semaphore" Object;
    /// The others at a barrier: a [`Counted`].
    Barrier = "barrier" Object;
    /// An initialisation that somebody else runs.
    Once = "once" Object;
    /// An event.
    Event = "event" Object;
    /// The members of a wait group: a [`Counted`].
    WaitGroup = "wait group" Object;
    /// One of several at once: [`Choices`].
    Select = "select" Choices;
    /// A job on the blocking pool; no detail.
    Blocking = "blocking job" Number;
    /// A name lookup on the blocking pool; the name.
    Resolve = "name lookup" Text;
    /// A future to be woken: a [`Counted`] with the future's type as its name and whoever woke it last as its user. Its
    /// number: how often it was polled; wanted: since when, in ticks. Extra: [`WaitReason::in_future`] of the descriptor that
    /// its last poll found not ready, the last of several; 0: none.
    Future = "future" Object;
    /// A signal; detail: its number.
    Signal = "signal" Number;
    /// One of several signals; detail: a bit for each, the lowest for number 1.
    Signals = "signals" Number;
    /// The end of a child process; detail: the descriptor that announces it, -1 for none, and the process's number in the
    /// upper half. Extra: the address of a `&str`, its program, that the waiting frames keep.
    Child = "wait child" Number;
    /// The start of a child process on the blocking pool; the program.
    Spawn = "spawn child" Text;
    /// At a breakpoint; the event that it is for.
    Breakpoint = "breakpoint" Text;
    /// A call on a file, on the blocking pool; the path. Extra: a [`FileCall`].
    File = "file" Text;
    [Later0 Later1 Later2 Later3 Later4 Later5 Later6 Later7 Later8 Later9 Later10 Later11 Later12 Later13 Later14 Later15]
}

static LATER: [OnceLock<&'static WaitWords>; 16] = [const { OnceLock::new() }; 16];
static LATER_USED: AtomicUsize = AtomicUsize::new(0);

/// What is done with a file: the extra of [`WaitKind::File`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum FileCall {
    Other,
    Open,
    Read,
    Write,
    Seek,
    Sync,
    Metadata,
    List,
    Create,
    Remove,
    Rename,
    Copy,
    Link,
    Lock,
}

static FILE_CALLS: [(FileCall, &str); 14] = [
    (FileCall::Other, "call on"),
    (FileCall::Open, "open"),
    (FileCall::Read, "read"),
    (FileCall::Write, "write"),
    (FileCall::Seek, "seek"),
    (FileCall::Sync, "sync"),
    (FileCall::Metadata, "metadata"),
    (FileCall::List, "list"),
    (FileCall::Create, "create"),
    (FileCall::Remove, "remove"),
    (FileCall::Rename, "rename"),
    (FileCall::Copy, "copy"),
    (FileCall::Link, "link"),
    (FileCall::Lock, "lock"),
];

impl FileCall {
    /// As a view says it.
    pub(crate) fn word(self) -> &'static str {
        FILE_CALLS[self as usize].1
    }

    /// From what a task said beside its wait.
    pub(crate) fn from_extra(extra: u64) -> FileCall {
        FILE_CALLS.get(extra as usize).map_or(FileCall::Other, |(call, _)| *call)
    }
}

impl WaitKind {
    /// A kind that a module brings along, once per process; `None` if there are too many, which a module may show as
    /// [`WaitKind::None`].
    #[allow(dead_code, reason = "for modules to come; the tests use it")]
    pub(crate) fn register(words: &'static WaitWords) -> Option<WaitKind> {
        let n = LATER_USED.fetch_add(1, Ordering::Relaxed);
        LATER.get(n)?.set(words).ok()?;
        KINDS.get(WORDS.len() + n).copied()
    }

    /// From the byte that a cell holds; unknown bytes read as `None`.
    pub(crate) fn from_byte(b: u8) -> WaitKind {
        KINDS.get(usize::from(b)).copied().unwrap_or(WaitKind::None)
    }

    /// The word of every kind that there is.
    pub(crate) fn all_words() -> impl Iterator<Item = &'static str> {
        KINDS.iter().map(|kind| kind.word()).filter(|word| !word.is_empty())
    }

    /// The byte.
    #[inline(always)]
    pub(crate) fn byte(self) -> u8 {
        self as u8
    }

    /// How to speak of it.
    pub(crate) fn words(self) -> Option<&'static WaitWords> {
        let n = usize::from(self.byte());
        match n.checked_sub(WORDS.len()) {
            None => WORDS.get(n),
            Some(later) => LATER.get(later)?.get().copied(),
        }
    }

    /// Whether the detail is the address of an [`Object`].
    pub(crate) fn has_object(self) -> bool {
        self.detail() == Detail::Object
    }

    /// What the detail is.
    pub(crate) fn detail(self) -> Detail {
        self.words().map_or(Detail::Number, |w| w.detail)
    }

    /// The word that views print.
    pub(crate) fn word(self) -> &'static str {
        self.words().map_or("", |w| w.word)
    }
}

/// A kind and its detail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WaitReason {
    pub(crate) kind: WaitKind,
    pub(crate) detail: u64,
}

impl WaitReason {
    pub(crate) const fn new(kind: WaitKind, detail: u64) -> WaitReason {
        WaitReason { kind, detail }
    }

    /// For a kind whose detail is the object waited for.
    pub(crate) fn object(kind: WaitKind, object: &Object) -> WaitReason {
        WaitReason { kind, detail: std::ptr::from_ref(object).expose_provenance() as u64 }
    }

    /// For a kind whose object counts something.
    pub(crate) fn counted(kind: WaitKind, counted: &Counted) -> WaitReason {
        WaitReason { kind, detail: std::ptr::from_ref(counted).expose_provenance() as u64 }
    }

    /// For a read-write lock.
    pub(crate) fn worded(kind: WaitKind, worded: &Worded) -> WaitReason {
        WaitReason { kind, detail: std::ptr::from_ref(worded).expose_provenance() as u64 }
    }

    /// For a channel.
    pub(crate) fn traffic(kind: WaitKind, traffic: &Traffic) -> WaitReason {
        WaitReason { kind, detail: std::ptr::from_ref(traffic).expose_provenance() as u64 }
    }

    /// For a kind whose detail is a text, which the caller keeps where it is for as long as it waits.
    #[cfg(not(loom))]
    pub(crate) fn text(kind: WaitKind, text: &&str) -> WaitReason {
        WaitReason { kind, detail: std::ptr::from_ref(text).expose_provenance() as u64 }
    }

    /// For a wait for several things at once, which the caller keeps where they are for as long as it waits.
    #[cfg(not(loom))]
    pub(crate) fn choices(choices: &Choices) -> WaitReason {
        WaitReason { kind: WaitKind::Select, detail: std::ptr::from_ref(choices).expose_provenance() as u64 }
    }

    /// For a kind whose detail is a descriptor: its number, and the serial number of the socket that has it now (0: not
    /// known), which tells it from the next one with that number.
    pub(crate) const fn descriptor(kind: WaitKind, fd: i32, serial: u32) -> WaitReason {
        WaitReason { kind, detail: fd as u32 as u64 | (serial as u64) << 32 }
    }

    /// The descriptor and the serial number of its socket, for a kind that has them.
    pub(crate) const fn as_descriptor(self) -> Option<(i32, u32)> {
        match self.kind {
            WaitKind::Read | WaitKind::Write | WaitKind::Accept | WaitKind::Connect => {
                Some((self.detail as u32 as i32, (self.detail >> 32) as u32))
            }
            // What stands in the upper half is no socket's.
            WaitKind::Child if self.detail as u32 as i32 >= 0 => Some((self.detail as u32 as i32, 0)),
            _ => None,
        }
    }

    /// What stands beside a future's wait of this one, which is for reading from or writing to a descriptor.
    #[allow(dead_code, reason = "without the feature futures-io no future does I/O")]
    pub(crate) const fn in_future(self) -> u64 {
        // Descriptors are not negative: the bit is free.
        self.detail | ((self.kind as u8 == WaitKind::Write as u8) as u64) << 31
    }

    /// From what stands beside a future's wait.
    pub(crate) const fn from_future(extra: u64) -> Option<WaitReason> {
        if extra == 0 {
            return None;
        }
        let kind = if extra & 1 << 31 == 0 { WaitKind::Read } else { WaitKind::Write };
        Some(WaitReason { kind, detail: extra & !(1 << 31) })
    }

    /// For a kind without detail.
    pub(crate) const fn of(kind: WaitKind) -> WaitReason {
        WaitReason { kind, detail: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_words_go_together() {
        assert_eq!(WaitKind::None.word(), "");
        assert_eq!(WaitKind::Signal.word(), "signal");
        assert_eq!(WaitKind::from_byte(WORDS.len() as u8), LATER_FIRST);
        assert_eq!(KINDS.len(), WORDS.len() + LATER.len());
        for b in 0..=u8::MAX {
            let kind = WaitKind::from_byte(b);
            assert!(kind.byte() == b || kind == WaitKind::None, "{kind:?}");
            assert!(kind.words().is_some() || usize::from(b) >= WORDS.len(), "{kind:?}");
        }
    }

    /// The first of those that are given out.
    const LATER_FIRST: WaitKind = WaitKind::Later0;

    #[test]
    fn calls_on_files_stand_at_their_numbers() {
        for (n, (call, word)) in FILE_CALLS.iter().enumerate() {
            assert_eq!((*call as usize, FileCall::from_extra(n as u64), call.word()), (n, *call, *word));
        }
        assert_eq!(FileCall::from_extra(u64::MAX), FileCall::Other);
    }

    #[test]
    fn a_child_that_is_waited_for_without_a_descriptor_has_none() {
        assert_eq!(WaitReason::descriptor(WaitKind::Child, 7, 1234).as_descriptor(), Some((7, 0)));
        assert_eq!(WaitReason::descriptor(WaitKind::Child, -1, 1234).as_descriptor(), None);
    }

    #[test]
    fn a_module_brings_its_own_kind() {
        static WORDS: WaitWords = WaitWords {
            word: "exit of",
            detail: Detail::Number,
            describe: Some(|pid, out| write!(out, " process {pid}")),
        };
        let kind = WaitKind::register(&WORDS).unwrap();
        assert_eq!(WaitKind::from_byte(kind.byte()), kind);
        assert_eq!(kind.word(), "exit of");
        let mut text = String::new();
        kind.words().unwrap().describe.unwrap()(17, &mut text).unwrap();
        assert_eq!(text, " process 17");
    }
}
