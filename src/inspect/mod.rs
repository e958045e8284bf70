//! Looking into the live process: every task, its state, what it waits for and its own stack.
//!
//! Nothing is resumed or stopped. A task that is not running is held for the time of a copy (INSPECT, see
//! `task::state`); everything else happens on the copy.
//!
//! # Tasks that run
//!
//! On Linux the stack of a task that runs is shown as well. If its thread is blocked in a system call, the kernel tells where
//! (`/proc/self/task/TID/syscall`) and the thread notices nothing. Otherwise, or if that does not suffice to follow the
//! stack, the thread gets a signal, whose handler copies its registers and its stack: one signal per running task of a dump,
//! rarely two or three, and none unless somebody asks. A thread that does not answer within 20 ms of CPU time, or gets none
//! for 200 ms, is shown as the kernel sees it: its state, its system call and its CPU time.
//!
//! The signal is `SIGURG`, which is ignored by default; `CORO_STACK_SIGNAL` names another (`USR2`, `RTMIN+3`) or says `off`.
//! Its handler is installed at the first use, with `SA_RESTART`, and passes on every signal that is not its own to whatever
//! handler the program had or installs later.
//!
//! What the signal can be noticed by: with `SA_RESTART` the kernel goes on by itself with `read`, `write`, `accept`,
//! `connect`, `recv` and `send` without a time limit, `wait`, `futex` (the locks and condition variables of std and of C),
//! and std goes on with `thread::sleep`. These calls end with `EINTR` whatever the flags: `nanosleep` and `usleep`,
//! `poll`, `select`, `epoll_wait`, `sigtimedwait`, `semop`, `msgrcv`, and `recv`, `send`, `accept` or `connect` on a socket
//! that blocks and has a time limit of its own (`std::net::TcpStream::set_read_timeout`). Code in a task that makes
//! such a call itself must be ready for that, as for any signal; the primitives of this crate are.
//!
//! Must not know: who asks, or over what.

mod capture;
mod circles;
mod classes;
mod collect;
pub(crate) mod condensed;
mod deadlock;
mod descriptors;
mod dump;
#[cfg(all(any(target_os = "linux", target_os = "android"), not(miri)))]
mod dwarf_bytes;
#[cfg(all(any(target_os = "linux", target_os = "android"), not(miri)))]
mod dwarf_calls;
#[cfg(all(any(target_os = "linux", target_os = "android"), not(miri)))]
mod dwarf_rows;
#[cfg(all(test, any(target_os = "linux", target_os = "android"), not(miri)))]
mod dwarf_tests;
#[cfg(all(any(target_os = "linux", target_os = "android"), not(miri)))]
mod dwarf_units;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod elf;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod elf_files;
#[cfg(all(any(target_os = "linux", target_os = "android"), not(miri)))]
mod elf_lines;
mod facts;
mod filter;
pub(crate) mod folding;
mod frames;
mod grouped;
mod leaving;
mod line;
mod lineage;
mod list;
pub(crate) mod loaded;
mod long;
mod modules;
#[allow(dead_code, reason = "the watchdog and the symbolizer are about to use it")]
pub(crate) mod names;
mod objects;
mod one_line;
mod overflow;
mod quiet;
mod raw;
mod row;
#[cfg_attr(
    not(all(target_os = "linux", not(any(miri, coro_thread_context)))),
    allow(dead_code, reason = "what runs can be asked on Linux only")
)]
pub(crate) mod running;
mod shapes;
mod snapshot;
mod sockets;
mod stacks;
mod status;
mod sweep;
pub(crate) mod symbols;
mod text;
mod top;
mod tree;
mod waiting;
mod waits;
pub(crate) mod walk;
// These tests switch stacks by hand, which neither an interpreter nor the address sanitizer can follow.
#[cfg(all(test, target_os = "linux", target_arch = "x86_64", not(any(miri, coro_asan))))]
mod walk_tests;

pub use crate::observe::Distribution;
pub use classes::{ClassReport, classes, classes_of};
#[cfg(feature = "serde")]
pub(crate) use collect::one as one_as_values;
pub(crate) use collect::process;
pub(crate) use deadlock::{Circles, InWait};
pub use deadlock::{Deadlock, DeadlockKind, DeadlockWait, deadlocks, suspected_deadlocks};
pub use descriptors::{DescriptorUse, descriptors};
pub(crate) use dump::{Sink, dump_as_the_environment_says, dump_with, status_with};
pub use dump::{dump_on, status};
pub(crate) use filter::{Clause, Field, Pattern, Question, Test};
pub(crate) use frames::{stack_frames, stack_text};
pub(crate) use grouped::StacksCursor;
pub use grouped::stacks_to;
pub(crate) use line::Cursor;
pub use line::{TaskState, TaskWhere, where_all, where_all_to, where_is};
pub(crate) use lineage::{Origin, ancestors, labels, origin, own_origin};
#[cfg(feature = "serde")]
pub(crate) use list::Values;
pub(crate) use list::{Brief, Group, Groups, Listing, Matching, brief};
#[cfg(feature = "probe")]
pub(crate) use list::{WaitNow, who_waits};
pub(crate) use long::one;
pub(crate) use objects::queued;
pub(crate) use one_line::OneLine;
pub(crate) use overflow::install_overflow_frames;
pub(crate) use quiet::quiet;
pub use snapshot::{
    Edge, Frame, Object, Options, Party, Process, SCHEMA_VERSION, Site, Snapshot, Stack, Task, Wait, Worker,
};
#[cfg(feature = "probe")]
pub(crate) use sockets::all_waiting;
pub use sockets::{
    EventReport, PeerReport, SiteSockets, SocketKind, SocketReport, Waiter, events, peers, sockets, sockets_by_site,
};
pub use stacks::{StackStats, stack_stats};
pub(crate) use status::{Busy, Census};
pub use text::Style;
#[cfg_attr(not(feature = "backdoor"), allow(unused_imports, reason = "most of it is for the console"))]
pub(crate) use text::steers;
pub(crate) use top::{Look, Share, Tops};
pub(crate) use tree::TreeCursor;
pub use tree::tree_to;
pub(crate) use waiting::name_of;
