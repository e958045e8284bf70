//! Stacks for tasks: where they come from, how they are guarded, what happens when one overflows.
//!
//! Purpose: a worker promises itself stacks through [`try_reserve_many`], takes one for a task's first run from its own
//! [`StackPool`] and gives it back when the task ends; a signal handler ([`overflow`]) names the task whose stack was too
//! small.
//! Invariants: no stack without a guard of 64 KiB below it, ever; address space of stacks is never unmapped, so that
//! [`slot_of`] may judge any address at any time.
//! Must not know: tasks, workers, the switch. What the overflow report must tell about a task comes through function
//! pointers registered from above.
//!
//! Rejected: one `mmap` and `mprotect` per stack. The kernel's default limit on mappings then ends the process near 32,000
//! tasks, and even `malloc` fails on the way there.

mod altstack;
mod class;
mod credit;
mod guard;
mod line;
pub(crate) mod overflow;
mod pool;
mod region;
mod registers;
mod slot;
mod stats;
#[cfg(all(test, target_os = "linux", target_arch = "x86_64", not(miri)))]
mod tests;

#[allow(unused_imports, reason = "the module's face; not every build uses all of it")]
pub(crate) use self::{
    altstack::AltStack,
    class::{ClassId, class_for, default_class},
    credit::{release, release_many, try_reserve, try_reserve_many},
    guard::GuardMode,
    pool::StackPool,
    region::{SlotBounds, slot_of},
    registers::Registers,
    slot::{Stack, unpoison},
    stats::{ClassStats, StackStats, stats},
};
