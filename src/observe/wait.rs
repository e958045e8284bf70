//! Why a task is parked: a kind and one word of detail, resolved to text only when somebody asks.

#![forbid(unsafe_code)]

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
    /// Readable data; detail: the descriptor.
    Read,
    /// Room to write; detail: the descriptor.
    Write,
    /// A connection to accept; detail: the descriptor.
    Accept,
    /// A connection to be established; detail: the descriptor.
    Connect,
    /// A mutex; detail: the address of the mutex's `AtomicU64` that holds the owner's task id (0: none, or a plain
    /// thread). Valid while the task is parked, because the waiter borrows the mutex.
    Lock,
    /// Room in a channel; detail: the channel's address, for telling channels apart.
    Send,
    /// A message; detail: the channel's address.
    Recv,
    /// The end of a task; detail: its id.
    Join,
    /// The end of a scope's children; detail: how many are left is not known here.
    Scope,
    /// The end of the runtime.
    EventLoop,
    /// A stack: memory was refused and the start is retried; detail: the OS error.
    Stack,
}

impl WaitKind {
    /// From the byte that a cell holds; unknown bytes read as `None`.
    pub(crate) fn from_byte(b: u8) -> WaitKind {
        const ALL: [WaitKind; 14] = [
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
        ];
        ALL.get(usize::from(b)).copied().unwrap_or(WaitKind::None)
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

    /// For a kind without detail.
    pub(crate) const fn of(kind: WaitKind) -> WaitReason {
        WaitReason { kind, detail: 0 }
    }
}
