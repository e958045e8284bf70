//! Words that commands and expressions take and that no answer lists: filters of tasks with their values, what tasks can be
//! counted and sorted by, methods of lists and texts.
//!
//! A server of another version may know others. The tests ask one of this version about every word here.
//!
//! Must not know: what was typed, the connection.

#![forbid(unsafe_code)]

/// What may follow a filter's sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Values {
    /// One of these.
    Words(&'static [&'static str]),
    /// A task's name.
    Names,
    /// A class of tasks.
    Classes,
    /// Something that only its user knows.
    Free,
}

/// A filter with the sign that is most of use with it.
pub(super) const FILTERS: &[(&str, Values)] = &[
    ("age>", Values::Free),
    ("by=", Values::Words(GROUPS)),
    ("class=", Values::Classes),
    ("delay>", Values::Free),
    ("id=", Values::Free),
    ("label.", Values::Free),
    ("limit=", Values::Free),
    ("longest>", Values::Free),
    ("name=", Values::Names),
    ("name~", Values::Names),
    ("parent=", Values::Free),
    ("peer~", Values::Free),
    ("run>", Values::Free),
    ("site~", Values::Free),
    ("slices>", Values::Free),
    ("sort=", Values::Words(ORDERS)),
    ("stack~", Values::Free),
    ("state=", Values::Words(STATES)),
    ("wait=", Values::Words(WAITS)),
    ("worker=", Values::Free),
];

pub(super) const STATES: &[&str] = &["parked", "runnable", "running", "unstarted"];

pub(super) const GROUPS: &[&str] = &["class", "name", "parent", "peer", "site", "state", "wait", "worker"];

pub(super) const ORDERS: &[&str] = &["age", "delay", "id", "longest", "run", "slices"];

pub(super) const WAITS: &[&str] = &[
    "accept",
    "barrier",
    "blocking_job",
    "condvar",
    "connect",
    "event",
    "event_loop",
    "join",
    "lock",
    "name_lookup",
    "once",
    "read",
    "read_lock",
    "recv",
    "recv_oneshot",
    "scope",
    "select",
    "semaphore",
    "send",
    "signal",
    "sleep",
    "wait_group",
    "waiting_for_a_stack",
    "write",
    "write_lock",
];

/// What can be done with a list, a map or a text without changing it.
pub(super) const METHODS: &[&str] = &[
    "all",
    "contains",
    "ends_with",
    "filter",
    "find",
    "index_of",
    "keys",
    "len",
    "map",
    "reduce",
    "some",
    "split",
    "starts_with",
    "sub_string",
    "to_string",
    "values",
];
