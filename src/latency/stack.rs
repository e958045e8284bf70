//! The stack of a stalled task: taken, walked and named without allocating, for a thread that may wait for nobody.
//!
//! Invariants: after [`Eyes::new`] nothing here allocates, frees or takes a lock that somebody holds for longer than a few
//! loads. What was loaded into the process later is learnt from the [`scribe`](super::scribe), which leaves a newer [`Kit`] to be
//! swapped in. Must not know: what becomes of the stack.

#![forbid(unsafe_code)]

use std::fmt::Write;
use std::sync::{Arc, Mutex};

use super::record::{FRAMES, Record};
use crate::context;
use crate::inspect::OneLine;
use crate::inspect::condensed::First;
use crate::inspect::folding::{Class, Named, classify};
use crate::inspect::loaded;
use crate::inspect::names::{FixedBuf, Names};
use crate::inspect::running::{self, RunningCopy, Sample};
use crate::inspect::symbols::probe_address;
use crate::inspect::walk::{End, MAX_FRAMES, Registers, StackBytes, Walker};
use crate::scheduler::shared::Shared;
use crate::task::TaskCell;

/// What is needed to read stacks with the modules of one moment.
#[derive(Debug)]
struct Kit {
    walker: Walker,
    names: Names,
    /// Whether it is newer than the one it is offered to.
    new: bool,
}

/// A newer kit for the watchdog, or the one that it gave back.
static NEXT: Mutex<Option<Box<Kit>>> = Mutex::new(None);

impl Kit {
    fn new() -> Kit {
        let modules = loaded::latest();
        let names = Names::new(modules.clone());
        let mut walker = Walker::with_modules(modules);
        let (start, end) = context::base_range();
        walker.set_base_range(start, end);
        Kit { walker, names, new: true }
    }
}

/// By the scribe: makes a newer kit if modules were loaded since that one.
#[derive(Debug, Default)]
pub(super) struct Renewal {
    made_for: Option<Names>,
}

impl Renewal {
    pub(super) fn look(&mut self) {
        let modules = loaded::refreshed(loaded::PATIENCE);
        if self.made_for.as_ref().is_some_and(|names| Arc::ptr_eq(names.modules(), &modules)) {
            return;
        }
        let kit = Box::new(Kit::new());
        kit.names.prepare();
        self.made_for = Some(kit.names.clone());
        let old = match NEXT.lock() {
            Ok(mut place) => place.replace(kit),
            Err(_) => None,
        };
        // Not while the watchdog might look.
        drop(old);
    }

    /// The innermost of the program's own functions, which is the one to blame.
    pub(super) fn culprit(&self, addresses: &[usize]) -> Option<String> {
        let names = self.made_for.as_ref()?;
        addresses.iter().find_map(|address| {
            let (mut bytes, probe) = ([0; 512], probe_address(*address, true));
            let mut name = FixedBuf::new(&mut bytes);
            let is_named = names.name_of(probe, &mut name).is_some();
            let module = names.modules().locate(probe).map_or("", |(image, _)| image.file_name());
            let named = Named { function: name.as_str(), is_named, module, file: "" };
            (classify(&named) == Class::User).then(|| OneLine(name.as_str()).to_string())
        })
    }
}

/// The stack that was seen last.
#[derive(Debug)]
pub(super) struct Eyes {
    kit: Box<Kit>,
    sample: Sample,
    addresses: Vec<usize>,
    /// The task's base was reached.
    whole: bool,
    /// There is nothing, or only a part, because the thread did not answer.
    silent: bool,
}

impl Eyes {
    pub(super) fn new() -> Eyes {
        Eyes {
            kit: Box::new(Kit::new()),
            sample: Sample::with_room(),
            addresses: Vec::with_capacity(MAX_FRAMES),
            whole: false,
            silent: false,
        }
    }

    fn clear(&mut self) {
        self.addresses.clear();
        (self.whole, self.silent) = (false, false);
    }

    /// Looks at the stack of the task that the worker runs. Takes some 50 µs; longer, up to 0.2 s, if the thread does not
    /// answer.
    pub(super) fn look(&mut self, worker: &'static Shared, cell: &TaskCell, id: u64) {
        if let Ok(mut place) = NEXT.try_lock()
            && let Some(next) = place.as_mut()
            && next.new
        {
            // The old one goes back: the scribe frees it with the next.
            std::mem::swap(&mut self.kit, next);
            next.new = false;
        }
        self.clear();
        let (walker, addresses) = (&mut self.kit.walker, &mut self.addresses);
        let mut check = |registers: &Registers, stack: &StackBytes<'_>| {
            addresses.clear();
            walker.walk(registers, stack, addresses) == End::Complete
        };
        match running::copy_running(worker, cell, id, &mut self.sample, &mut check) {
            RunningCopy::Elsewhere | RunningCopy::Unsupported => return self.clear(),
            RunningCopy::Silent => self.silent = true,
            RunningCopy::Copied => {}
        }
        self.whole = self.sample.whole;
        if !self.sample.after_call
            && let Some(first) = self.addresses.first_mut()
        {
            // The others point behind their calls: so all are looked up in the same way.
            *first += 1;
        }
    }

    /// ` [spin+0x1f] [main+0x80]`, or why there is nothing.
    pub(super) fn write(&self, out: &mut impl Write) {
        if !self.addresses.is_empty() {
            let mut bytes = [0; 3000];
            let mut text = FixedBuf::new(&mut bytes);
            self.kit.names.write_stack(&self.addresses, First::ResumePoint, &mut text);
            let _ = write!(out, " {}", text.as_str());
            if !self.whole && !text.as_str().ends_with("[...]") {
                let _ = out.write_str(" [...]");
            }
        }
        if self.silent {
            let _ = write!(out, " ({})", self.sample.kernel);
        }
    }

    pub(super) fn put_into(&self, record: &mut Record) {
        let n = self.addresses.len().min(FRAMES);
        record.addresses[..n].copy_from_slice(&self.addresses[..n]);
        record.frames = n;
        record.whole = self.whole && n == self.addresses.len();
    }
}
