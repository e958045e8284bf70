//! How stacks are guarded, decided once per process, and what the heavier way may cost.
//!
//! Purpose: choose between guards without mappings (Linux 6.13 and later) and `mprotect`; keep the budget of mappings
//! the latter uses.
//! Invariants: the mode never changes once asked for; [`mappings`] never exceeds [`mapping_budget`].
//! Must not know: where slots lie.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::class::GUARD;
use crate::sys::mem::{self, Access};

/// How the guard below each stack is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GuardMode {
    /// Markers in the page tables (`MADV_GUARD_INSTALL`): no mapping of their own.
    Madvise,
    /// A closed mapping below each stack: two mappings per slot.
    Mprotect,
}

impl GuardMode {
    /// The mode of this process: `CORO_STACK_GUARDS`, else the best the kernel can do.
    ///
    /// # Errors
    /// The variable holds something else, or asks for what the kernel refuses; the same at every call.
    pub(crate) fn current() -> io::Result<GuardMode> {
        static MODE: OnceLock<Result<GuardMode, String>> = OnceLock::new();
        let mode = MODE.get_or_init(|| {
            let wish = std::env::var_os("CORO_STACK_GUARDS");
            choose(wish.as_ref().map(|text| text.to_string_lossy()).as_deref(), probe)
        });
        mode.as_ref().copied().map_err(|text| io::Error::new(io::ErrorKind::InvalidInput, text.clone()))
    }

    /// The word `CORO_STACK_GUARDS` knows it by.
    pub(crate) fn name(self) -> &'static str {
        match self {
            GuardMode::Madvise => "madvise",
            GuardMode::Mprotect => "mprotect",
        }
    }
}

fn choose(wish: Option<&str>, probe: impl Fn() -> io::Result<()>) -> Result<GuardMode, String> {
    match wish {
        // Any failure means the older way: it works everywhere and fails with an error of its own if it must.
        None => Ok(if probe().is_ok() { GuardMode::Madvise } else { GuardMode::Mprotect }),
        Some("mprotect") => Ok(GuardMode::Mprotect),
        Some("madvise") => probe().map(|()| GuardMode::Madvise).map_err(|error| {
            format!(
                "CORO_STACK_GUARDS=madvise, but this kernel refuses such guards ({error}): \
                 unset it, or use Linux 6.13 or later and do not lock all memory with mlockall"
            )
        }),
        Some(other) => {
            Err(format!("CORO_STACK_GUARDS={other:?} is not known: set it to madvise or mprotect, or unset it"))
        }
    }
}

/// Puts a guard on a scratch mapping. Also refused when all memory is locked.
fn probe() -> io::Result<()> {
    if cfg!(miri) {
        return Ok(());
    }
    let page = mem::page_size();
    let addr = mem::map(page, Access::ReadWrite)?;
    // SAFETY: the mapping is ours, made above, and nobody else knows it.
    unsafe {
        let answer = mem::install_guard(addr, page);
        mem::unmap(addr, page)?;
        answer
    }
}

static MAPPINGS: AtomicUsize = AtomicUsize::new(0);

/// Mappings that guards use now: two per slot under [`GuardMode::Mprotect`], else none.
pub(crate) fn mappings() -> usize {
    MAPPINGS.load(Ordering::Relaxed)
}

/// Most mappings guards may use: half of the kernel's limit, since at the limit even `malloc` fails.
pub(crate) fn mapping_budget() -> usize {
    static BUDGET: OnceLock<usize> = OnceLock::new();
    *BUDGET.get_or_init(|| mem::max_map_count().map_or(usize::MAX, |most| most / 2))
}

/// Takes mappings for up to `slots` slots out of the budget; returns for how many there were any.
pub(crate) fn charge(slots: usize) -> usize {
    let budget = mapping_budget();
    let mut used = MAPPINGS.load(Ordering::Relaxed);
    loop {
        let granted = slots.min(budget.saturating_sub(used) / 2);
        match MAPPINGS.compare_exchange_weak(used, used + 2 * granted, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return granted,
            Err(now) => used = now,
        }
    }
}

/// Gives the mappings of `slots` slots back to the budget.
pub(crate) fn refund(slots: usize) {
    MAPPINGS.fetch_sub(2 * slots, Ordering::Relaxed);
}

/// The error for a stack that would need more mappings than there may be. `slots` are promised or in use already.
pub(crate) fn no_mappings(slots: usize) -> io::Error {
    let limit = mem::max_map_count().unwrap_or(0);
    let needed = 4 * (slots + 1);
    io::Error::new(
        io::ErrorKind::OutOfMemory,
        format!(
            "no stack for another task: guards of {} KiB made by mprotect take 2 memory mappings per stack, and {slots} stacks \
             use up half of vm.max_map_count={limit}; it must be at least {needed} for one more, 4 per task in all: \
             sysctl -w vm.max_map_count={} (Linux 6.13 and later need none of this)",
            GUARD >> 10,
            needed.max(limit.saturating_mul(2)),
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mode_follows_wish_and_kernel() {
        let refused = || Err(io::Error::from_raw_os_error(libc::EINVAL));
        assert_eq!(choose(None, || Ok(())), Ok(GuardMode::Madvise));
        assert_eq!(choose(None, refused), Ok(GuardMode::Mprotect));
        assert_eq!(choose(Some("mprotect"), || Ok(())), Ok(GuardMode::Mprotect));
        assert!(choose(Some("madvise"), refused).unwrap_err().contains("unset it"));
        assert!(choose(Some("none"), || Ok(())).unwrap_err().contains("madvise or mprotect"));
    }

    #[test]
    fn the_limit_names_setting_and_value() {
        let text = no_mappings(16_382).to_string();
        assert!(text.contains("vm.max_map_count") && text.contains("at least 65532"), "{text}");
    }
}
