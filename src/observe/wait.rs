//! Why a task is parked: a kind and one word of detail, resolved to text only when somebody asks.

#![forbid(unsafe_code)]

use super::Object;

/// What a parked task waits for. The meaning of the detail word stands with each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum WaitKind {
    /// Not said.
    None = 0,
    /// The user's `park`; no detail.
    Park,
    /// A sleep; detail: the deadline in nanoseconds of the runtime's timer clock.
    Sleep,
    /// Readable data; detail: the descriptor and which socket that is, see [`WaitReason::descriptor`].
    Read,
    /// Room to write; detail: as of `Read`.
    Write,
    /// A connection to accept; detail: as of `Read`.
    Accept,
    /// A connection to be established; detail: as of `Read`.
    Connect,
    /// A mutex; detail: the address of its [`Object`](super::Object), as for every kind of `sync`. Valid while the task
    /// is parked, because the waiter borrows what it waits for.
    Lock,
    /// Room in a channel; detail: its `Object`.
    Send,
    /// A message; detail: the channel's `Object`.
    Recv,
    /// The end of a task; detail: its id.
    Join,
    /// The end of a scope's children; detail: the address of their number, an `AtomicUsize` that lives as long as the wait.
    /// Each child has the same address in its `TaskLocal`.
    Scope,
    /// The end of the runtime.
    EventLoop,
    /// A stack: memory was refused and the start is retried; detail: the OS error.
    Stack,
    /// Shared access to a read-write lock; detail: its `Object`.
    ReadLock,
    /// Exclusive access to a read-write lock; detail: its `Object`.
    WriteLock,
    /// A notification of a condition variable; detail: its `Object`.
    Condvar,
    /// Permits of a semaphore; detail: its `Object`.
    Semaphore,
    /// The others at a barrier; detail: its `Object`.
    Barrier,
    /// An initialisation that somebody else runs; detail: its `Object`.
    Once,
    /// An event; detail: its `Object`.
    Event,
    /// The members of a wait group; detail: its `Object`.
    WaitGroup,
    /// One of several at once.
    Select,
    /// A job on the blocking pool; no detail.
    Blocking,
    /// A name lookup on the blocking pool; no detail.
    Resolve,
    /// A signal; detail: its number.
    Signal,
}

impl WaitKind {
    /// From the byte that a cell holds; unknown bytes read as `None`.
    pub(crate) fn from_byte(b: u8) -> WaitKind {
        const ALL: [WaitKind; 26] = [
            WaitKind::None,
            WaitKind::Park,
            WaitKind::Sleep,
            WaitKind::Read,
            WaitKind::Write,
            WaitKind::Accept,
            WaitKind::Connect,
            WaitKind::Lock,
            WaitKind::Send,
            WaitKind::Recv,
            WaitKind::Join,
            WaitKind::Scope,
            WaitKind::EventLoop,
            WaitKind::Stack,
            WaitKind::ReadLock,
            WaitKind::WriteLock,
            WaitKind::Condvar,
            WaitKind::Semaphore,
            WaitKind::Barrier,
            WaitKind::Once,
            WaitKind::Event,
            WaitKind::WaitGroup,
            WaitKind::Select,
            WaitKind::Blocking,
            WaitKind::Resolve,
            WaitKind::Signal,
        ];
        ALL.get(usize::from(b)).copied().unwrap_or(WaitKind::None)
    }

    /// Whether the detail is the address of an [`Object`].
    pub(crate) fn has_object(self) -> bool {
        use WaitKind::*;
        matches!(
            self,
            Lock | Send | Recv | ReadLock | WriteLock | Condvar | Semaphore | Barrier | Once | Event | WaitGroup
        )
    }

    /// The word that views print.
    pub(crate) fn word(self) -> &'static str {
        match self {
            WaitKind::None => "",
            WaitKind::Park => "park",
            WaitKind::Sleep => "sleep",
            WaitKind::Read => "read",
            WaitKind::Write => "write",
            WaitKind::Accept => "accept",
            WaitKind::Connect => "connect",
            WaitKind::Lock => "lock",
            WaitKind::Send => "send",
            WaitKind::Recv => "recv",
            WaitKind::Join => "join",
            WaitKind::Scope => "scope",
            WaitKind::EventLoop => "event_loop",
            WaitKind::Stack => "waiting for a stack",
            WaitKind::ReadLock => "read lock",
            WaitKind::WriteLock => "write lock",
            WaitKind::Condvar => "condvar",
            WaitKind::Semaphore => "semaphore",
            WaitKind::Barrier => "barrier",
            WaitKind::Once => "once",
            WaitKind::Event => "event",
            WaitKind::WaitGroup => "wait group",
            WaitKind::Select => "select",
            WaitKind::Blocking => "blocking job",
            WaitKind::Resolve => "name lookup",
            WaitKind::Signal => "signal",
        }
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
        WaitReason { kind, detail: std::ptr::from_ref(object) as u64 }
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
            _ => None,
        }
    }

    /// For a kind without detail.
    pub(crate) const fn of(kind: WaitKind) -> WaitReason {
        WaitReason { kind, detail: 0 }
    }
}
