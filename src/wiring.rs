//! The one place where low layers are tied to high ones: what the scheduler calls when a task panics, when a shutdown
//! leaves tasks behind, and when the first runtime starts; and that the backdoor answers with `commands`.

use std::ptr;
use std::sync::Once;
use std::sync::atomic::Ordering;

use crate::commands;
use crate::inspect;
use crate::scheduler::suspend::here;
use crate::scheduler::{Upward, runtime};
use crate::stack::overflow;
use crate::sys::stderr;
use crate::task::TaskCell;

/// What the scheduler knows of the layers above it.
pub(crate) static UPWARD: Upward =
    Upward { uncaught: crate::panic::uncaught, left_behind, in_panic_hook: crate::panic::in_hook, init };

/// Conditions of probes are expressions. In a table, because a program may attach probes before its first runtime.
#[cfg(all(feature = "probe", feature = "script"))]
#[linkme::distributed_slice(crate::probe::CORO_CONDITIONS_0_1)]
static CONDITIONS: crate::probe::Compile = crate::script::condition;

fn init() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        overflow::describe_with(describe);
        inspect::status_with(commands::status_text);
        crate::panic::install_hook();
        if cfg!(miri) {
            // It knows neither files to be mapped nor signals, and what runs beside the tasks would only slow it.
            return;
        }
        inspect::loaded::prepare();
        inspect::install_overflow_frames();
        inspect::running::prepare();
        crate::latency::install();
        crate::report::look_for_deadlocks();
        inspect::dump_with(commands::dump);
        inspect::dump_as_the_environment_says();
        door::as_the_environment_says();
    });
    probes::as_the_environment_says();
}

/// Not within what is done once and waited for: it runs code of the program's, which may start a runtime by itself.
#[cfg(feature = "probe")]
mod probes {
    use std::sync::atomic::{AtomicBool, Ordering};

    pub(super) fn as_the_environment_says() {
        static DONE: AtomicBool = AtomicBool::new(false);
        if !cfg!(miri) && !DONE.swap(true, Ordering::Relaxed) {
            crate::probe::as_the_environment_says();
        }
    }
}

/// There are no probes in this program.
#[cfg(not(feature = "probe"))]
mod probes {
    use std::sync::atomic::{AtomicBool, Ordering};

    use crate::sys::stderr;

    /// An operator who asks for what is not there is told so, once.
    pub(super) fn as_the_environment_says() {
        static DONE: AtomicBool = AtomicBool::new(false);
        let wanted = || std::env::var_os("CORO_PROBES").is_some_and(|v| !["", "0", "off"].iter().any(|off| v == *off));
        if !DONE.swap(true, Ordering::Relaxed) && wanted() {
            stderr::write(
                "coro: no probes as CORO_PROBES says, the program goes on: it was built without the feature \"probe\" of coro-rt\n",
            );
        }
    }
}

/// Names the running task in a signal handler: reads only what the running task's worker owns, on its own thread.
fn describe(out: &mut overflow::TaskDescription) {
    let Some(h) = here() else { return };
    out.known = true;
    out.id = h.id();
    // SAFETY: the task runs on this thread (it was interrupted), so its name and stack are its worker's to read.
    unsafe {
        if let Some(name) = h.cell.name() {
            let n = name.len().min(out.name.len());
            out.name[..n].copy_from_slice(&name.as_bytes()[..n]);
            out.name_len = n;
        }
        if let Some(stack) = &*h.cell.stack.get() {
            out.slot_top = stack.slot_top();
        }
    }
    #[cfg(feature = "probe")]
    {
        out.spare_top = h.worker.spare_top();
    }
}

/// How many of the tasks that a shutdown left behind are written out.
const NAMED: usize = 32;

fn left_behind(inner: &runtime::Inner) {
    // Those that run first: one of them is why the others did not end, and it must be among those written out.
    let running: Vec<*const TaskCell> =
        inner.workers().iter().map(|w| w.current.load(Ordering::Acquire).cast_const()).collect();
    let mut left = Vec::new();
    inner.for_each_task(|cell, id| left.push((!running.contains(&ptr::from_ref(cell)), id)));
    left.sort_unstable();
    for (_, id) in left.iter().take(NAMED) {
        if let Some(t) = inspect::where_is(*id) {
            // Without a stack the line says by itself where the task was spawned.
            let site = t.spawned_at.filter(|_| !t.stack.is_empty());
            let site = site.map(|s| format!(" spawned at {}:{}", s.file(), s.line())).unwrap_or_default();
            stderr::write(&format!("coro: shutdown left a task behind: {t}{site}\n"));
        }
    }
    if left.len() > NAMED {
        stderr::write(&format!("coro: shutdown left {} more tasks behind\n", left.len() - NAMED));
    }
}

/// Who answers at the backdoor.
#[cfg(feature = "backdoor")]
mod door {
    use super::runtime;
    use crate::{backdoor, commands, inspect, script};

    pub(super) use crate::backdoor::as_the_environment_says;

    /// Says what the backdoor answers with; called before every `serve`.
    pub(crate) fn commands() {
        commands::functions_with(script::functions, script::callables);
        backdoor::register(backdoor::Commands { table: commands::TABLE, banner, name, welcome, evaluator: EVALUATOR });
    }

    /// What is no command is an expression.
    #[cfg(feature = "script")]
    const EVALUATOR: Option<fn() -> Box<dyn commands::Evaluate>> = Some(|| Box::new(script::Evaluator::new()));
    #[cfg(not(feature = "script"))]
    const EVALUATOR: Option<fn() -> Box<dyn commands::Evaluate>> = None;

    fn welcome() -> Box<dyn commands::Answer> {
        commands::status(inspect::Style::PLAIN)
    }

    /// The program as it was started, without its directory.
    fn program() -> String {
        let program = std::env::args_os().next().map(std::path::PathBuf::from);
        let name =
            program.as_deref().and_then(|p| p.file_name()).map(|n| n.to_string_lossy().escape_debug().to_string());
        name.unwrap_or_default()
    }

    fn name() -> String {
        format!("{}[{}]", program(), std::process::id())
    }

    fn banner() -> String {
        let workers: usize = runtime::all().iter().map(|r| r.workers().len()).sum();
        format!(
            "{} pid {}, coro {}, {workers} workers; help lists the commands",
            program(),
            std::process::id(),
            env!("CARGO_PKG_VERSION")
        )
    }
}
#[cfg(feature = "backdoor")]
pub(crate) use door::commands;

/// There is no backdoor in this program.
#[cfg(not(feature = "backdoor"))]
mod door {
    use crate::sys::stderr;

    /// An operator who asks for what is not there is told so, once.
    pub(super) fn as_the_environment_says() {
        let wanted = std::env::var_os("CORO_BACKDOOR").is_some_and(|v| !["", "0", "off"].iter().any(|off| v == *off));
        if wanted {
            stderr::write(
                "coro: no backdoor as CORO_BACKDOOR says, the program goes on: it was built without the feature \"backdoor\" of \
                 coro-rt\n",
            );
        }
    }
}
