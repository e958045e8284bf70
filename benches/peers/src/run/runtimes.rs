//! Who takes part. Must not know: in what.

/// What a runtime's figures may be held against.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    Ours,
    /// Its tasks may go to another thread.
    Shared,
    /// It has one thread, on which its tasks stay, with all that they share: nothing there has to be `Send`, and no lock is one.
    Local,
    /// A web server on somebody else's runtime: HTTP only.
    Web,
    /// No runtime: what the kernel's calls cost that every one of them makes, and the switches of those whose tasks have stacks. Never the
    /// best peer.
    Limit,
}

impl Kind {
    pub(crate) fn is_peer(self) -> bool {
        matches!(self, Kind::Shared | Kind::Local | Kind::Web)
    }
}

pub(crate) struct Runtime {
    /// For the command line, the programs and the results.
    pub(crate) name: &'static str,
    /// For people; the name of its package, if it has one.
    pub(crate) label: &'static str,
    pub(crate) kind: Kind,
}

const fn runtime(name: &'static str, label: &'static str, kind: Kind) -> Runtime {
    Runtime { name, label, kind }
}

/// The runtime that the others are compared with.
pub(crate) const OURS: &str = "coro";

/// Nothing but epoll, or switches between stacks; beside ours in each round, because the two are compared most closely.
pub(crate) const BARE: &str = "bare";

/// In the order in which each round runs them.
pub(crate) const RUNTIMES: &[Runtime] = &[
    runtime(OURS, "coro", Kind::Ours),
    runtime(BARE, "bare", Kind::Limit),
    runtime("tokio", "tokio", Kind::Shared),
    runtime("may", "may", Kind::Shared),
    runtime("smol", "smol", Kind::Shared),
    runtime("go", "Go", Kind::Shared),
    runtime("glommio", "glommio", Kind::Local),
    runtime("monoio", "monoio", Kind::Local),
    runtime("hyper", "hyper", Kind::Web),
    runtime("minihttp", "may_minihttp", Kind::Web),
];

pub(crate) fn find(name: &str) -> Option<&'static Runtime> {
    RUNTIMES.iter().find(|runtime| runtime.name == name)
}

/// What people call it.
pub(crate) fn label(name: &str) -> &str {
    find(name).map_or(name, |runtime| runtime.label)
}
