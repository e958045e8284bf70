//! Walks the copied stack of a task.
//!
//! Purpose: from three registers and a copy of the stack's used part to the list of code addresses.
//!
//! Invariants:
//! - No memory is read except the copy and the tables in [`ModuleMap`]; a walk takes no lock and allocates nothing, so that
//!   the watchdog may walk while a thread holds the allocator's lock.
//! - Every walk ends: each step raises the stack pointer, stays inside the copy, and lands in
//!   executable code of a known image; there are at most [`MAX_FRAMES`] of them, or as many as the caller says.
//! - `Complete` is said only after the task's base was reached, never because the tables ran out, nor where the unwinder
//!   is about to leave (see `leaving`).
//!
//! It must not know: how the stack was copied, which task it belongs to, what an address is called.
//!
//! On ELF systems on x86-64 and aarch64 the compiler's unwind tables are used, so no frame pointers
//! are needed. The unwinder silently follows the frame pointer where the tables say nothing; the
//! rules above bound what that can invent. Elsewhere only frame pointers are followed: complete on
//! Apple's arm64, whose calling convention demands them, a guess otherwise.
#![forbid(unsafe_code)]

use super::modules::ModuleMap;
use std::ops::Range;
use std::sync::Arc;

/// Longest chain that is followed.
pub(crate) const MAX_FRAMES: usize = 1024;

/// Registers of a task that does not run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Registers {
    /// The exact instruction at which the task goes on, not a return address.
    pub(crate) ip: usize,
    pub(crate) sp: usize,
    pub(crate) fp: usize,
    #[cfg(target_arch = "aarch64")]
    #[cfg_attr(target_vendor = "apple", allow(dead_code, reason = "stacks of Mach-O programs are not walked yet"))]
    pub(crate) lr: usize,
}

/// A copy of `[sp, top)` of a task's stack.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StackBytes<'a> {
    /// Where `bytes[0]` was copied from.
    pub(crate) base: usize,
    pub(crate) bytes: &'a [u8],
}

impl StackBytes<'_> {
    fn end(&self) -> usize {
        self.base.saturating_add(self.bytes.len())
    }

    #[inline]
    pub(crate) fn read(&self, address: usize) -> Option<usize> {
        const WORD: usize = size_of::<usize>();
        let offset = address.checked_sub(self.base)?;
        let word = self.bytes.get(offset..offset.checked_add(WORD)?)?;
        Some(usize::from_ne_bytes(word.try_into().ok()?))
    }
}

/// How a walk ended.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The task's base was reached.
    Complete,
    /// Anything else: the addresses found are the innermost part of the stack.
    Truncated,
}

/// One address of a walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) address: usize,
    /// The stack pointer of that frame, as it is after the return to it.
    sp: usize,
}

impl Step {
    /// Where the address was read, if it is a return address: known where calls push it.
    pub(crate) fn return_at(&self) -> Option<usize> {
        if cfg!(target_arch = "x86_64") { self.sp.checked_sub(size_of::<usize>()) } else { None }
    }
}

/// The unwinder and its cache. One per thread that walks.
pub(crate) struct Walker {
    modules: Arc<ModuleMap>,
    engine: engine::Engine,
    base: Range<usize>,
}

impl std::fmt::Debug for Walker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let images = self.modules.images.len();
        f.debug_struct("Walker").field("images", &images).finish_non_exhaustive()
    }
}

impl Walker {
    /// A walker over a list of images; takes no lock. Allocates; walking does not.
    pub(crate) fn with_modules(modules: Arc<ModuleMap>) -> Walker {
        let engine = engine::Engine::new(&modules);
        Walker { modules, engine, base: 0..0 }
    }

    /// The images known to this walker, to be shared with the symbol cache.
    pub(crate) fn modules(&self) -> &Arc<ModuleMap> {
        &self.modules
    }

    /// Goes over to another list of images; false if it is the same. Allocates and frees.
    pub(crate) fn set_modules(&mut self, modules: Arc<ModuleMap>) -> bool {
        if Arc::ptr_eq(&self.modules, &modules) {
            return false;
        }
        self.engine = engine::Engine::new(&modules);
        self.modules = modules;
        true
    }

    /// Names the code at the base of every task's stack; reaching it makes a walk complete.
    pub(crate) fn set_base_range(&mut self, start: usize, end: usize) {
        self.base = start..end;
    }

    /// Appends the stack's code addresses to `out`, innermost first, without the base itself.
    ///
    /// The first address is `regs.ip`, an instruction; all others are return addresses, which point
    /// *behind* their call. Who looks up a name or line must subtract one from all but the first.
    ///
    /// Neither allocates nor takes a lock, if `out` has room for [`MAX_FRAMES`] more.
    pub(crate) fn walk(&mut self, regs: &Registers, stack: &StackBytes<'_>, out: &mut Vec<usize>) -> End {
        self.walk_with(regs, stack, MAX_FRAMES, |address| out.push(address))
    }

    /// As [`walk`](Walker::walk), with a chain of at most `most` frames.
    pub(crate) fn walk_with(
        &mut self,
        regs: &Registers,
        stack: &StackBytes<'_>,
        most: usize,
        mut found: impl FnMut(usize),
    ) -> End {
        self.follow(regs, stack, most, |step, is_base| {
            if !is_base {
                found(step.address);
            }
        })
    }

    /// As [`walk`](Walker::walk), with stack pointers, and the base last if it was reached. `out` is emptied before.
    pub(crate) fn trail(&mut self, regs: &Registers, stack: &StackBytes<'_>, out: &mut Vec<Step>) -> End {
        out.clear();
        self.follow(regs, stack, MAX_FRAMES, |step, _| out.push(step))
    }

    #[inline(always)]
    fn follow(
        &mut self,
        regs: &Registers,
        stack: &StackBytes<'_>,
        most: usize,
        mut found: impl FnMut(Step, bool),
    ) -> End {
        let mut cursor = self.engine.start(regs);
        let mut address = regs.ip;
        let mut is_first = true;
        // The last segment hit: most frames of a stack lie in one image.
        let mut code = 0..0;
        // How many of the next frames can be the unwinder's while it leaves: one of those functions, or what it calls directly and then it.
        let mut unsure = if self.modules.leaving.is_near(address) { 2 } else { 0 };
        for _ in 0..most {
            // A call as the base's last instruction returns to its end, which starts no frame.
            if self.base.contains(&address) || (!is_first && self.base_ends_at(address)) {
                found(Step { address, sp: cursor.sp() }, true);
                return End::Complete;
            }
            // The byte that is looked up must be code, and for a return address that is the call.
            let probe = address.wrapping_sub(usize::from(!is_first));
            if !code.contains(&probe) {
                match self.modules.code_at(probe) {
                    Some(found) => code = found,
                    None => return End::Truncated,
                }
            }
            let sp = cursor.sp();
            found(Step { address, sp }, false);
            if unsure > 0 {
                if self.modules.leaving.is_part(probe, &self.modules) {
                    return End::Truncated;
                }
                unsure -= 1;
            }
            // An overflow faults with the stack pointer below what can be read; the caller's frame is above.
            if (sp < stack.base && !is_first) || sp > stack.end() {
                return End::Truncated;
            }
            let Some(next) = self.engine.step(&mut cursor, address, is_first, stack) else {
                return End::Truncated;
            };
            let may_keep_sp = is_first && engine::LEAF_KEEPS_SP;
            if cursor.sp() < sp || (cursor.sp() == sp && !may_keep_sp) {
                return End::Truncated;
            }
            address = next;
            is_first = false;
        }
        End::Truncated
    }

    fn base_ends_at(&self, address: usize) -> bool {
        !self.base.is_empty() && address == self.base.end
    }
}

#[cfg(all(
    any(target_os = "linux", target_os = "android", target_os = "freebsd"),
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
mod engine {
    use super::*;
    use crate::inspect::modules::{Image, ImageBytes};
    use framehop::{ExplicitModuleSectionInfo, FrameAddress, Module, MustNotAllocateDuringUnwind, Unwinder as _};

    #[cfg(target_arch = "aarch64")]
    use framehop::aarch64::{
        CacheAarch64 as Cache, PtrAuthMask, UnwindRegsAarch64 as Regs, UnwinderAarch64 as Unwinder,
    };
    #[cfg(target_arch = "x86_64")]
    use framehop::x86_64::{CacheX86_64 as Cache, UnwindRegsX86_64 as Regs, UnwinderX86_64 as Unwinder};

    /// On aarch64 a call leaves the stack pointer alone, so a leaf's caller may have the same.
    pub(super) const LEAF_KEEPS_SP: bool = cfg!(target_arch = "aarch64");

    pub(super) struct Engine {
        unwinder: Unwinder<ImageBytes, MustNotAllocateDuringUnwind>,
        cache: Cache<MustNotAllocateDuringUnwind>,
    }

    pub(super) struct Cursor {
        regs: Regs,
    }

    impl Cursor {
        pub(super) fn sp(&self) -> usize {
            self.regs.sp() as usize
        }
    }

    impl Engine {
        /// A fresh cache comes with it: framehop's 16-bit generation could otherwise wrap and match
        /// rules of an image that is gone.
        pub(super) fn new(modules: &ModuleMap) -> Engine {
            let mut unwinder = Unwinder::new();
            for image in &modules.images {
                if let Some(module) = framehop_module(image) {
                    unwinder.add_module(module);
                }
            }
            Engine { unwinder, cache: Cache::new_in() }
        }

        #[cfg(target_arch = "x86_64")]
        pub(super) fn start(&self, regs: &Registers) -> Cursor {
            Cursor { regs: Regs::new(regs.ip as u64, regs.sp as u64, regs.fp as u64) }
        }

        #[cfg(target_arch = "aarch64")]
        pub(super) fn start(&self, regs: &Registers) -> Cursor {
            // System libraries may sign return addresses; the highest code address tells which
            // bits can hold a signature.
            let mask = PtrAuthMask::from_max_known_address(self.unwinder.max_known_code_address());
            let (lr, sp, fp) = (regs.lr as u64, regs.sp as u64, regs.fp as u64);
            Cursor { regs: Regs::new_with_ptr_auth_mask(mask, lr, sp, fp) }
        }

        pub(super) fn step(
            &mut self,
            cursor: &mut Cursor,
            address: usize,
            is_first: bool,
            stack: &StackBytes<'_>,
        ) -> Option<usize> {
            let address = if is_first {
                FrameAddress::from_instruction_pointer(address as u64)
            } else {
                FrameAddress::from_return_address(address as u64)?
            };
            let mut read = |at: u64| stack.read(at as usize).map(|word| word as u64).ok_or(());
            self.unwinder
                .unwind_frame(address, &mut cursor.regs, &mut self.cache, &mut read)
                .ok()
                .flatten()
                .map(|next| next as usize)
        }
    }

    fn framehop_module(image: &Image) -> Option<Module<ImageBytes>> {
        let tables = image.tables.as_ref()?;
        let info = ExplicitModuleSectionInfo {
            // Relative to the lowest segment: framehop keeps offsets in 32 bits, and an image need
            // not be linked near address zero.
            base_svma: image.span.start.wrapping_sub(image.bias) as u64,
            eh_frame_hdr_svma: Some(tables.hdr_svma.clone()),
            eh_frame_hdr: Some(tables.hdr.clone()),
            eh_frame_svma: Some(tables.eh_frame_svma.clone()),
            eh_frame: Some(tables.eh_frame.clone()),
            ..ExplicitModuleSectionInfo::default()
        };
        let span = image.span.start as u64..image.span.end as u64;
        Some(Module::new(String::new(), span.clone(), span.start, info))
    }
}

#[cfg(not(all(
    any(target_os = "linux", target_os = "android", target_os = "freebsd"),
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
mod engine {
    use super::*;

    pub(super) const LEAF_KEEPS_SP: bool = false;

    /// Follows the frame-pointer chain: `[fp]` holds the caller's, the next word the return address.
    pub(super) struct Engine;

    pub(super) struct Cursor {
        sp: usize,
        fp: usize,
    }

    impl Cursor {
        pub(super) fn sp(&self) -> usize {
            self.sp
        }
    }

    impl Engine {
        pub(super) fn new(_modules: &ModuleMap) -> Engine {
            Engine
        }

        pub(super) fn start(&self, regs: &Registers) -> Cursor {
            Cursor { sp: regs.sp, fp: regs.fp }
        }

        pub(super) fn step(
            &mut self,
            cursor: &mut Cursor,
            _address: usize,
            _is_first: bool,
            stack: &StackBytes<'_>,
        ) -> Option<usize> {
            const WORD: usize = size_of::<usize>();
            if cursor.fp < cursor.sp {
                return None;
            }
            let next = stack.read(cursor.fp.checked_add(WORD)?)?;
            let fp = stack.read(cursor.fp)?;
            cursor.sp = cursor.fp + 2 * WORD;
            cursor.fp = fp;
            Some(next)
        }
    }
}
