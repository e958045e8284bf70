//! The process's one walker and its symbols.

#![forbid(unsafe_code)]

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::capture::Captured;
use super::condensed::{Detail, First, StackTexts, push_escaped};
use super::folding::{Folding, classify};
use super::loaded;
use super::modules::BuildId;
use super::shapes::{Shape, Shapes};
use super::symbols::{DebugInfo, Frame, Symbols};
use super::walk::{End, Registers, StackBytes, Walker};
use crate::context;

/// Walks copies and names what it finds.
pub(super) struct Frames {
    pub(super) walker: Walker,
    pub(super) symbols: Symbols,
    pub(super) texts: StackTexts,
    shapes: Shapes,
    addresses: Vec<usize>,
    /// What the last walk found, if that was known before.
    shape: Option<Shape>,
    /// Found out at the first dump.
    built: Option<DebugInfo>,
    is_advised: bool,
}

impl Frames {
    pub(super) fn new() -> Frames {
        let walker = walker();
        let symbols = Symbols::new(walker.modules().clone());
        Frames {
            walker,
            symbols,
            texts: StackTexts::new(),
            shapes: Shapes::new(),
            addresses: Vec::new(),
            shape: None,
            built: None,
            is_advised: false,
        }
    }

    /// What the build kept, so that there are names and lines.
    fn built(&mut self) -> DebugInfo {
        *self.built.get_or_insert_with(|| self.symbols.warm())
    }

    /// Once per process: what to change for better stacks, if anything, in lines.
    pub(super) fn advice(&mut self) -> Option<String> {
        if std::mem::replace(&mut self.is_advised, true) { None } else { advice(self.built()) }
    }

    /// Behind the stacks of every dump: what names are missing and how to have them elsewhere. Whole lines, mostly none.
    pub(super) fn footer(&mut self) -> String {
        let mut out = String::new();
        if self.built() == DebugInfo::Stripped
            && let Some((image, _)) = self.walker.modules().locate(Frames::new as *const () as usize)
        {
            out = elsewhere(image.file_name(), image.build_id);
        }
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if super::elf_files::was_refused() {
            out.push_str("names of some libraries are missing: no descriptor was free to read their files\n");
        }
        out
    }

    /// Notices modules that were loaded since; gives up soon if a thread that stands still keeps the loader's lock.
    pub(super) fn refresh(&mut self) {
        if self.walker.set_modules(loaded::refreshed(loaded::PATIENCE)) {
            self.symbols.set_modules(self.walker.modules().clone());
            self.texts.clear();
            self.shapes.clear();
        }
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if super::elf_files::take_refused() {
            // There may be descriptors now.
            self.symbols.set_modules(self.walker.modules().clone());
            self.texts.clear();
            self.shapes.clear();
        }
    }

    /// Whether a walk reaches the task's base.
    pub(super) fn reaches_base(&mut self, registers: &Registers, stack: &StackBytes<'_>) -> bool {
        self.addresses.clear();
        self.walker.walk(registers, stack, &mut self.addresses) == End::Complete
    }

    /// Walks the copied stack of a captured task; true if its base was reached. The addresses are there until the next walk.
    pub(super) fn walk(&mut self, task: &Captured) -> bool {
        self.addresses.clear();
        self.shape = None;
        let Some(registers) = &task.registers else { return true };
        let bytes = StackBytes { base: task.base, bytes: &task.bytes };
        if !task.interrupted
            && let Some(shape) = self.shapes.find(registers, &bytes)
        {
            self.addresses.extend_from_slice(self.shapes.addresses(shape));
            self.shape = Some(shape);
            return true;
        }
        let complete = self.walker.walk(registers, &bytes, &mut self.addresses) == End::Complete;
        if task.interrupted {
            if let Some(first) = self.addresses.first_mut() {
                // The others point behind their calls: so all are looked up in the same way.
                *first += 1;
            }
        } else if complete {
            self.shapes.walked(&self.addresses, &mut self.walker, registers, &bytes);
        }
        complete
    }

    /// What the last walk found, innermost first; each points behind the instruction that it stands for, or into it.
    pub(super) fn addresses(&self) -> &[usize] {
        &self.addresses
    }

    /// Appends the condensed form of a stack.
    pub(super) fn text(&mut self, addresses: &[usize], first: First, complete: bool, out: &mut String) {
        self.texts.write(addresses, first, Detail::Folded, &mut self.symbols, out);
        if !complete {
            out.push_str(CUT);
        }
    }

    /// The calls of a stack one by one, those that the condensed form leaves out marked.
    pub(super) fn list(&mut self, addresses: &[usize]) -> Vec<super::Frame> {
        self.list_with(addresses, |_, _, frame| frame.function.clone())
    }

    /// The same with whole names, generic arguments included.
    pub(super) fn list_whole(&mut self, addresses: &[usize]) -> Vec<super::Frame> {
        let (mut looked_up, mut names) = (0, Vec::new().into());
        self.list_with(addresses, |symbols, (address, at), frame| {
            if looked_up != address {
                names = symbols.resolve_full(address, true);
                looked_up = address;
            }
            names.get(at).unwrap_or(frame).function.clone()
        })
    }

    fn list_with(
        &mut self,
        addresses: &[usize],
        mut name: impl FnMut(&mut Symbols, (usize, usize), &Frame) -> Arc<str>,
    ) -> Vec<super::Frame> {
        let (mut found, mut classes) = (Vec::new(), Vec::new());
        for &address in addresses {
            for (at, f) in self.symbols.resolve(address, true).iter().enumerate() {
                classes.push(classify(&f.named()));
                found.push(super::Frame {
                    address,
                    function: name(&mut self.symbols, (address, at), f),
                    module: f.module.clone(),
                    file: f.file.clone(),
                    line: f.line,
                    folded: true,
                });
            }
        }
        let folding = Folding::of(&classes);
        for (at, frame) in found.iter_mut().enumerate() {
            frame.folded = !folding.keeps(at, classes[at]);
        }
        found
    }

    /// Appends the condensed stack of a captured task; true if it is whole.
    pub(super) fn write(&mut self, task: &Captured, out: &mut String) -> bool {
        if task.registers.is_none() {
            return true;
        }
        let complete = self.walk(task);
        if let Some(text) = self.shape.and_then(|shape| self.shapes.text(shape)) {
            out.push_str(text);
            return complete;
        }
        let start = out.len();
        self.texts.write(&self.addresses, First::ResumePoint, Detail::Folded, &mut self.symbols, out);
        if let Some(shape) = self.shape {
            self.shapes.keep_text(shape, &out[start..]);
        }
        if !complete {
            out.push_str(CUT);
        }
        complete
    }
}

/// The profile that this program was most likely built with.
const PROFILE: &str = if cfg!(debug_assertions) { "dev" } else { "release" };

fn advice(built: DebugInfo) -> Option<String> {
    let (lack, settings) = match built {
        DebugInfo::Full => return None,
        DebugInfo::ShortNames => {
            ("inlined calls are without their paths: this build keeps line tables only. For whole names", "debug = 1")
        }
        DebugInfo::NamesOnly => (
            "no lines: this build keeps no debug information. For lines and inlined calls",
            "debug = 1    # or \"line-tables-only\": smaller, inlined calls without their paths",
        ),
        DebugInfo::Stripped => {
            ("no names: this build is stripped. For names and lines", "debug = 1\n    strip = false")
        }
    };
    Some(format!("{lack}, put into Cargo.toml:\n    [profile.{PROFILE}]\n    {settings}\n"))
}

fn elsewhere(file: &str, build_id: BuildId) -> String {
    let mut name = String::new();
    push_escaped(file, &mut name);
    let id = if build_id.is_empty() { "without a build id".into() } else { format!("build id {build_id}") };
    format!(
        "{name} is stripped ({id}); the file from before says what {name}+0x1234 is: addr2line -Cfipe {name} 0x1234\n"
    )
}

/// A walker of one's own, over the images that are known.
pub(super) fn walker() -> Walker {
    let mut walker = Walker::with_modules(loaded::latest());
    let (start, end) = context::base_range();
    walker.set_base_range(start, end);
    walker
}

/// What stands where a stack could not be followed to the task's base.
pub(super) const CUT: &str = " [...]";

/// The walker, for one piece of an answer at a time.
pub(super) fn frames() -> MutexGuard<'static, Frames> {
    static FRAMES: OnceLock<Mutex<Frames>> = OnceLock::new();
    FRAMES.get_or_init(|| Mutex::new(Frames::new())).lock().unwrap_or_else(PoisonError::into_inner)
}

/// The condensed form of return addresses that were taken on the running stack.
pub(crate) fn stack_text(addresses: &[usize]) -> String {
    let mut out = String::new();
    let f = &mut *knowing(addresses);
    f.texts.write(addresses, First::ResumePoint, Detail::Folded, &mut f.symbols, &mut out);
    out
}

/// The walker; if one of the addresses is in none of its modules, after a look whether there are new ones.
fn knowing(addresses: &[usize]) -> MutexGuard<'static, Frames> {
    let mut f = frames();
    if addresses.iter().any(|a| f.walker.modules().locate(*a).is_none()) {
        f.refresh();
    }
    f
}

/// The frames of return addresses that were taken on the running stack, innermost first; all of them, or those that
/// [`stack_text`] shows.
pub(crate) fn stack_frames(addresses: &[usize], whole: bool) -> Vec<super::Frame> {
    let mut found = knowing(addresses).list(addresses);
    found.retain(|frame| whole || !frame.folded);
    found
}
