//! Whether the innermost frames are those of the system's unwinder while it leaves for a frame further out.
//!
//! What unwinds ends in a jump: `_Unwind_RaiseException`, `_Unwind_Resume` and two more write the registers of the frame that is to clean
//! up or to catch over those that their own frame saved, its return address among them, then move the stack pointer and go there
//! (`uw_install_context` in GCC's `unwind-dw2.c`). A thread that is interrupted in between has an innermost frame that is where it was, and
//! returns to somewhere else: a walk would look for the next frame by the rule of one in the place of another, and may well come
//! to the base, by frames that were left long ago. So there it ends.
//!
//! The part that writes has no name of its own; what calls it has. So of these functions and of what they call directly nothing
//! further out is believed. That is more than needed, and seldom: most of their time is spent further in.
//!
//! Must not know: why a stack is walked.

#![forbid(unsafe_code)]

use std::ops::Range;

use super::modules::{Function, ModuleMap};

/// Where they are.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    /// The executable segment that holds them.
    code: Range<usize>,
    functions: Vec<Function>,
}

impl Leaving {
    /// Allocates, and may take the loader's lock.
    pub(super) fn find(modules: &ModuleMap) -> Leaving {
        let all = crate::sys::unwinder::leaving();
        let code = all.first().and_then(|at| modules.code_at(*at)).unwrap_or_default();
        let functions = all.iter().filter(|at| code.contains(at)).filter_map(|at| modules.function_at(*at)).collect();
        Leaving { code, functions }
    }

    /// Whether an innermost frame there can be one of them, or called by one.
    pub(super) fn is_near(&self, address: usize) -> bool {
        self.code.contains(&address)
    }

    /// Whether the instruction is part of one of them.
    pub(super) fn is_part(&self, address: usize, modules: &ModuleMap) -> bool {
        self.is_near(address) && modules.function_at(address).is_some_and(|f| self.functions.contains(&f))
    }
}

#[cfg(all(test, target_os = "linux", target_env = "gnu", not(miri)))]
mod tests {
    use super::*;

    #[test]
    fn each_of_them_is_known_from_its_first_instruction_on_and_other_code_is_not() {
        let modules = ModuleMap::load();
        let leaving = Leaving::find(&modules);
        assert_eq!(leaving.functions.len(), 4, "{leaving:?}");
        for at in crate::sys::unwinder::leaving() {
            assert!(leaving.is_part(at, &modules) && leaving.is_part(at + 8, &modules), "{at:#x}");
            // What lies before may be another one of them.
            assert_ne!(modules.function_at(at - 1), modules.function_at(at), "{at:#x}");
        }
        let here = Leaving::find as *const () as usize;
        assert!(!leaving.is_part(here, &modules));
        assert!(modules.function_at(here).is_some() && modules.function_at(here) == modules.function_at(here + 1));
        assert_eq!(modules.function_at(0), None);
    }
}
