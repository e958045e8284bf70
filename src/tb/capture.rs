//! A stack that was kept: addresses and the task's origin, named when shown.
//!
//! Invariants: taking one waits for no lock that a dump or a look-up of names holds.

use std::fmt;
use std::sync::OnceLock;

use crate::context;
use crate::inspect::{self, Frame, Origin};

/// Longer stacks are cut at their outer end.
const MOST: usize = 256;

/// The return addresses of the caller's stack, innermost first, up to the task's base, and whether it came so far.
/// Frames up to and including that of the function `until` are left out.
#[inline(never)]
fn take_addresses(until: *const ()) -> (Vec<usize>, bool) {
    let base = context::base_range();
    let own = [take_addresses as *const () as usize, Captured::until as *const () as usize, until as usize];
    let mut addresses = Vec::with_capacity(32);
    let mut whole = true;
    // Frames that are not left out, but for those below them that are. So many are looked at.
    let mut leading = 8;
    let mut visit = |frame: &backtrace::Frame| {
        let ip = frame.ip() as usize;
        // Behind the first frame of a plain thread the unwinder may go on to an address that is none.
        if (base.0..=base.1).contains(&ip) || ip == 0 || ip == usize::MAX {
            return false;
        }
        addresses.push(ip);
        if leading > 0 {
            leading -= 1;
            if own.contains(&(frame.symbol_address() as usize)) {
                addresses.clear();
            }
        }
        whole = addresses.len() < MOST;
        whole
    };
    // SAFETY: on the systems that this crate runs on, stacks are walked by the unwinder, which synchronises by itself. The
    // lock that this call leaves out is held while names are looked up, for milliseconds.
    unsafe { backtrace::trace_unsynchronized(&mut visit) };
    (addresses, whole)
}

/// A stack as it was when this was made. To make one costs a walk (some microseconds); names and lines are looked up when it
/// is shown, which may take milliseconds the first time.
///
/// Shown with `{}` it is one line, `[src/db.rs fetch|31] [src/main.rs serve|12]`; with `{:#}` one line a call, followed by
/// who spawned the task.
///
/// # Examples
/// ```
/// let kept = coro::run(|| coro::tb::Captured::here());
/// println!("it was at {kept}");
/// assert_eq!(kept.to_string(), kept.to_string());
/// ```
#[derive(Clone)]
pub struct Captured {
    pub(super) addresses: Box<[usize]>,
    pub(super) whole: bool,
    origin: Option<Origin>,
    /// The ancestors that there were when they were first asked for.
    above: OnceLock<Vec<Origin>>,
}

impl fmt::Debug for Captured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Captured").field("task", &self.task()).field("frames", &self.addresses.len()).finish()
    }
}

impl Captured {
    /// The caller's stack.
    #[inline(never)]
    pub fn here() -> Captured {
        Captured::until(Captured::here as *const ())
    }

    #[inline(never)]
    pub(crate) fn until(until: *const ()) -> Captured {
        let (addresses, whole) = take_addresses(until);
        Captured { addresses: addresses.into(), whole, origin: inspect::own_origin(), above: OnceLock::new() }
    }

    /// The stack of a thread that works for a task. Looks at every task of the process.
    pub(crate) fn on_behalf_of(mut self, task: u64) -> Captured {
        self.origin = inspect::origin(task);
        self
    }

    /// The id of the task whose stack it is; 0 for a plain thread's.
    pub fn task(&self) -> u64 {
        self.origin.as_ref().map_or(0, |o| o.id)
    }

    /// The name of that task.
    pub fn task_name(&self) -> Option<&str> {
        self.origin.as_ref().and_then(|o| o.name.as_deref())
    }

    /// Where that task was spawned.
    pub fn spawned_at(&self) -> Option<&'static std::panic::Location<'static>> {
        self.origin.as_ref().and_then(|o| o.site)
    }

    /// The task that spawned it, whether it still exists or not; 0 for a plain thread.
    pub fn parent(&self) -> u64 {
        self.origin.as_ref().map_or(0, |o| o.parent)
    }

    /// The ancestors that exist now, or did when this was first called. Looks at every task of the process for each.
    pub(crate) fn above(&self) -> &[Origin] {
        self.above.get_or_init(|| inspect::ancestors(self.parent()))
    }

    /// The task's ancestors, nearest first: the one that spawned it and, as far as those before it still exist when this is
    /// first asked, the ones that spawned them. The answer stays the same from then on.
    pub fn lineage(&self) -> Vec<u64> {
        let parent = self.parent();
        let above = self.above();
        let next = above.last().map_or(0, |o| o.parent);
        let known = (parent != 0).then_some(parent);
        let mut all: Vec<u64> = known.into_iter().chain(above.iter().skip(1).map(|o| o.id)).collect();
        if next != 0 {
            all.push(next);
        }
        all
    }

    /// The calls, innermost first; those inside of the runtime and of std's panic machinery are left out.
    pub fn frames(&self) -> Vec<Frame> {
        inspect::stack_frames(&self.addresses, false)
    }

    /// All calls, innermost first.
    pub fn all_frames(&self) -> Vec<Frame> {
        inspect::stack_frames(&self.addresses, true)
    }

    /// Where the task was spawned, innermost call first; empty unless `CORO_SPAWN_STACKS=1`.
    pub fn spawn_frames(&self) -> Vec<Frame> {
        let stack = self.origin.as_ref().and_then(|o| o.spawn_stack.as_deref());
        inspect::stack_frames(stack.unwrap_or_default(), false)
    }

    /// The stack in one line: `[src/db.rs fetch|31] [src/main.rs serve|12]`.
    pub fn condensed(&self) -> String {
        let mut text = inspect::stack_text(&self.addresses);
        if !self.whole {
            text.push_str(" [...]");
        }
        text
    }

    pub(crate) fn addresses(&self) -> Vec<usize> {
        self.addresses.to_vec()
    }

    /// As `{:#}`, with the calls inside of the runtime.
    pub(crate) fn everything(&self) -> String {
        let mut text = String::new();
        let _ = self.write_long(&mut text, true, &|_| None);
        text
    }

    /// One line a call; `mark` says what is to be noted behind the calls of an address.
    pub(super) fn write_long(
        &self,
        f: &mut dyn fmt::Write,
        everything: bool,
        mark: &dyn Fn(usize) -> Option<String>,
    ) -> fmt::Result {
        let frames = inspect::stack_frames(&self.addresses, everything);
        for (i, frame) in frames.iter().enumerate() {
            write!(f, "    {}", FrameLine(frame))?;
            // Inlined calls share an address; the mark belongs to the outermost.
            let last = frames.get(i + 1).is_none_or(|next| next.address != frame.address);
            match mark(frame.address).filter(|_| last) {
                Some(text) => writeln!(f, "  {text}")?,
                None => writeln!(f)?,
            }
        }
        if !self.whole {
            writeln!(f, "    [...]")?;
        }
        self.write_lineage(f)
    }

    /// `spawned by #3 at src/main.rs:9`, and so on for the one that did.
    fn write_lineage(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        let Some(own) = &self.origin else { return Ok(()) };
        let above = self.above();
        let mut who = String::new();
        let mut child = own;
        for i in 0.. {
            let parent = above.get(i);
            write!(f, "  {who}spawned by ")?;
            match (child.parent, parent) {
                (0, _) => write!(f, "a plain thread")?,
                (id, None) => write!(f, "#{id}, which has ended,")?,
                (id, Some(p)) => match &p.name {
                    Some(name) => write!(f, "#{id} \"{}\"", inspect::OneLine(name))?,
                    None => write!(f, "#{id}")?,
                },
            }
            match child.site {
                Some(at) => writeln!(f, " at {}:{}", inspect::OneLine(at.file()), at.line())?,
                None => writeln!(f)?,
            }
            for frame in inspect::stack_frames(child.spawn_stack.as_deref().unwrap_or_default(), false) {
                writeln!(f, "    {}", FrameLine(&frame))?;
            }
            let Some(parent) = parent else { break };
            who = format!("#{} ", parent.id);
            child = parent;
        }
        Ok(())
    }
}

impl fmt::Display for Captured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() { self.write_long(f, false, &|_| None) } else { f.write_str(&self.condensed()) }
    }
}

/// `app::db::fetch at src/db.rs:31`.
struct FrameLine<'a>(&'a Frame);

impl fmt::Display for FrameLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", inspect::OneLine(&self.0.function))?;
        if let Some(file) = &self.0.file {
            write!(f, " at {}", inspect::OneLine(file))?;
            if let Some(line) = self.0.line {
                write!(f, ":{line}")?;
            }
        }
        Ok(())
    }
}
