//! Bundles of probes that are compiled in, and do nothing before they are named.
//!
//! Invariants: nothing of a bundle runs before it is named; what it does wrong reaches nobody but whoever named it.
//!
//! Must not know: who names them.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

use super::attach::{Attached, ProbeError};
use super::wrap::Wrapped;
use crate::scheduler::runtime::payload_text;

/// One bundle, as [`patch!`](macro@crate::probe::patch) makes it.
#[doc(hidden)]
pub struct Patch {
    name: &'static str,
    file: &'static str,
    line: u32,
    function: fn() -> Result<Vec<Attached>, String>,
}

impl Patch {
    /// For the macro.
    pub const fn new(
        name: &'static str,
        file: &'static str,
        line: u32,
        function: fn() -> Result<Vec<Attached>, String>,
    ) -> Patch {
        Patch { name, file, line, function }
    }
}

impl fmt::Debug for Patch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}:{}", self.name, self.file, self.line)
    }
}

/// What the function of a bundle may return.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be what the function of a `patch!` returns",
    note = "it returns the probes that it attached: `Attached`, `Vec<Attached>`, a `Wrapped` that is to stay, `()` if it did something else, or a `Result` of these"
)]
pub trait IntoAttached {
    /// The probes, or what went wrong.
    ///
    /// # Errors
    /// Text for whoever named the bundle.
    fn into_attached(self) -> Result<Vec<Attached>, String>;
}

impl IntoAttached for () {
    fn into_attached(self) -> Result<Vec<Attached>, String> {
        Ok(Vec::new())
    }
}

impl IntoAttached for Attached {
    fn into_attached(self) -> Result<Vec<Attached>, String> {
        Ok(vec![self])
    }
}

/// It stays.
impl IntoAttached for Wrapped {
    fn into_attached(self) -> Result<Vec<Attached>, String> {
        self.leave();
        Ok(Vec::new())
    }
}

impl IntoAttached for Vec<Attached> {
    fn into_attached(self) -> Result<Vec<Attached>, String> {
        Ok(self)
    }
}

impl<T: IntoAttached, E: fmt::Display> IntoAttached for Result<T, E> {
    fn into_attached(self) -> Result<Vec<Attached>, String> {
        self.map_err(|e| e.to_string())?.into_attached()
    }
}

/// Every bundle. The version is a part of its name for the same reason as in that of the points.
#[doc(hidden)]
#[linkme::distributed_slice]
pub static CORO_PATCHES_0_1: [Patch];

fn linked() -> &'static [Patch] {
    // Miri has no linker that could put the table together.
    if cfg!(miri) { &[] } else { CORO_PATCHES_0_1.static_slice() }
}

/// What those that were applied have attached.
static APPLIED: Mutex<BTreeMap<&'static str, Vec<Attached>>> = Mutex::new(BTreeMap::new());

/// The names of the bundles that were compiled in, in order.
pub fn patches() -> Vec<&'static str> {
    let mut names: Vec<&'static str> = linked().iter().map(|patch| patch.name).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Applies the bundle of that name, as `CORO_PROBES=patch:NAME` and `probe apply patch:NAME` at the console do, and says which probes
/// it has attached. One that was applied and of whose probes some still are attached is left as it is, and so is one that attached none;
/// otherwise it is applied anew. Bundles of one name go together.
///
/// Its probes stay as long as their limits allow; the console can take them away.
///
/// # Errors
/// If there is none of that name; if its function fails or panics, and then nothing of it stays.
pub fn apply_patch(name: &str) -> Result<Vec<u64>, ProbeError> {
    apply(name, &|| true).map(|(ids, _)| ids).map_err(ProbeError)
}

/// The same, and whether it was applied already. Nothing of it stays if it is not wanted any more when its function has returned.
pub(super) fn apply(name: &str, still: &dyn Fn() -> bool) -> Result<(Vec<u64>, bool), String> {
    let named: Vec<&'static Patch> = linked().iter().filter(|patch| patch.name == name).collect();
    let Some(first) = named.first() else {
        return Err(match &*patches() {
            [] => format!("no patch is called {name}; this program has none, coro::probe::patch! makes one"),
            some => format!("no patch is called {name}; there are {}", some.join(", ")),
        });
    };
    let ids = |all: &[Attached]| all.iter().filter(|one| one.ended().is_none()).map(Attached::id).collect::<Vec<_>>();
    if let Some(before) = applied().get(name) {
        let still = ids(before);
        if !still.is_empty() || before.is_empty() {
            return Ok((still, true));
        }
    }
    // Not under the lock: the function is the program's, and may apply another one.
    let mut all = Vec::new();
    for patch in &named {
        let outcome = catch_unwind(AssertUnwindSafe(patch.function)).unwrap_or_else(|payload| {
            let text = format!("it panicked: {}", payload_text(&*payload));
            std::mem::forget(payload);
            Err(text)
        });
        all.extend(outcome.map_err(|why| format!("patch {name} at {}:{}: {why}", patch.file, patch.line))?);
    }
    if !still() {
        return Err(format!("patch {name} is not wanted any more"));
    }
    let mut applied = applied();
    if let Some(others) = applied.get(name).map(|others| ids(others)).filter(|others| !others.is_empty()) {
        // Somebody else has done so at the same time, and was told of those.
        drop(applied);
        drop(all);
        return Ok((others, true));
    }
    let ids = ids(&all);
    let before = applied.insert(first.name, all);
    drop(applied);
    drop(before);
    Ok((ids, false))
}

fn applied() -> std::sync::MutexGuard<'static, BTreeMap<&'static str, Vec<Attached>>> {
    APPLIED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A bundle of probes that is compiled in and does nothing until somebody names it: `CORO_PROBES=patch:NAME` when the program starts,
/// `probe apply patch:NAME` at the console, or [`apply_patch`](crate::probe::apply_patch).
///
/// The function says what is attached: it returns an [`Attached`](crate::probe::Attached), a `Vec` of them, a [`Wrapped`](crate::probe::Wrapped), which
/// stays then, `()`, or a `Result` of one of these.
///
/// # Examples
/// ```
/// use coro::probe::{Attached, ProbeError, attach_to};
///
/// #[coro::probe]
/// fn query(text: &str) -> usize {
///     text.len()
/// }
///
/// coro::probe::patch!("slow-queries", slow_queries);
///
/// fn slow_queries() -> Result<Vec<Attached>, ProbeError> {
///     let slow = attach_to("query").named("slow queries").log().when(|e| e.elapsed().is_some_and(|d| d.as_secs() > 0));
///     Ok(vec![slow.start()?, attach_to("query").named("queries").count().start()?])
/// }
///
/// assert!(coro::probe::patches().contains(&"slow-queries"));
/// assert_eq!(coro::probe::apply_patch("slow-queries").unwrap().len(), 2);
/// ```
#[doc(hidden)]
#[macro_export]
macro_rules! __patch {
    ($name:literal, $function:expr $(,)?) => {
        const _: () = {
            #[$crate::__private::linkme::distributed_slice($crate::probe::CORO_PATCHES_0_1)]
            #[linkme(crate = $crate::__private::linkme)]
            static PATCH: $crate::probe::Patch =
                $crate::probe::Patch::new($name, ::core::file!(), ::core::line!(), || {
                    $crate::probe::IntoAttached::into_attached(($function)())
                });
        };
    };
}
