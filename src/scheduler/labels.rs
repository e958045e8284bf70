//! The running task's labels: what the program wants to see beside the task in every view.

#[cfg(feature = "probe")]
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::stall;
use super::suspend::{Here, here};
#[cfg(feature = "probe")]
use crate::observe::{Scope, ScopeSet, Scopes};
use crate::task::{Label, TaskCell};

/// Those of plain threads.
#[cfg(feature = "probe")]
mod of_thread {
    use crate::observe::Scopes;

    thread_local! {
        pub(super) static SCOPES: Scopes = const { Scopes::new() };
    }
}

/// The scopes that whoever runs here is in.
#[cfg(feature = "probe")]
pub(crate) fn with_scopes<R>(f: impl FnOnce(&Scopes) -> R) -> R {
    if let Some(h) = here() {
        return f(&own_label(&h).scopes);
    }
    let mut f = Some(f);
    let done = of_thread::SCOPES.try_with(|scopes| f.take().map(|f| f(scopes))).ok().flatten();
    // At the very end of a thread there are none any more.
    done.unwrap_or_else(|| f.take().expect("it was not called")(&Scopes::new()))
}

/// The same as a set: what is spawned here begins with it.
#[cfg(feature = "probe")]
#[inline(always)]
pub(crate) fn scopes_here(h: Option<Here>) -> Option<ScopeSet> {
    match h {
        // SAFETY: the task itself runs.
        Some(h) => unsafe { h.cell.label() }.and_then(|label| label.scopes.get()),
        None => of_thread::SCOPES.try_with(Scopes::get).ok().flatten(),
    }
}

/// Whether whoever runs here is in that scope.
#[cfg(feature = "probe")]
pub(crate) fn is_in(scope: &Arc<Scope>) -> bool {
    scopes_here(here()).is_some_and(|set| set.iter().any(|other| Arc::ptr_eq(other, scope)))
}

/// The closure, to be run somewhere else in the scopes that whoever runs here is in.
#[cfg(feature = "probe")]
pub(crate) fn in_these_scopes<T>(f: impl FnOnce() -> T + Send + 'static) -> impl FnOnce() -> T + Send + 'static {
    /// However it ends.
    struct Back(Option<ScopeSet>);

    impl Drop for Back {
        fn drop(&mut self) {
            with_scopes(|scopes| scopes.put(self.0.take()));
        }
    }

    let set = scopes_here(here());
    move || {
        let Some(set) = set else { return f() };
        let _back = Back(with_scopes(|scopes| scopes.put(Some(set))));
        f()
    }
}

/// There are none.
#[cfg(not(feature = "probe"))]
pub(crate) fn in_these_scopes<T>(f: impl FnOnce() -> T + Send + 'static) -> impl FnOnce() -> T + Send + 'static {
    f
}

/// The box with the task's labels, made if it has none.
fn own_label(h: &Here) -> &'static Label {
    let cell: &'static TaskCell = h.cell;
    // SAFETY: the task itself runs: it may read its label, which stays until the cell is freed, and it alone makes one.
    unsafe {
        if cell.label().is_none() {
            cell.set_label(Box::default());
        }
        cell.label().expect("just made")
    }
}

/// Sets a label of the running task, shown beside it in every view and report; returns the old value.
///
/// A task has at most 16 labels; keys are cut after 64 bytes and values after 256. Costs an allocation or two, so set it
/// per request, not per byte. On a plain thread it does nothing and returns `None`.
///
/// # Panics
/// If the task has 16 other labels.
///
/// # Examples
/// ```
/// coro::run(|| {
///     coro::set_label("req", 4711);
///     assert_eq!(coro::label("req").as_deref(), Some("4711"));
///     assert_eq!(coro::set_label("req", 4712).as_deref(), Some("4711"));
///     let line = coro::where_is(coro::current().unwrap().id()).unwrap().to_string();
///     assert!(line.contains("req=4712"), "{line}");
/// });
/// ```
pub fn set_label(key: &str, value: impl std::fmt::Display) -> Option<String> {
    let h = here()?;
    let windowed = || h.cell.state.inspected_now();
    match own_label(&h).set(key, Some(&value.to_string()), windowed) {
        Ok(was) => {
            #[cfg(feature = "tracing")]
            tell_spans(&h);
            was
        }
        Err(()) => panic!("a task has at most 16 labels; take one away with coro::remove_label first"),
    }
}

/// Takes a label of the running task away; returns its value.
pub fn remove_label(key: &str) -> Option<String> {
    let h = here()?;
    // SAFETY: the task itself runs.
    let label = unsafe { h.cell.label() }?;
    let was = label.set(key, None, || h.cell.state.inspected_now()).unwrap_or(None);
    #[cfg(feature = "tracing")]
    tell_spans(&h);
    was
}

/// `req=4711 user=ann`.
#[cfg(feature = "tracing")]
fn tell_spans(h: &Here) {
    h.spans().labels(|| labels().iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" "));
}

/// A label of the running task.
pub fn label(key: &str) -> Option<String> {
    labels().into_iter().find(|(k, _)| k == key).map(|(_, v)| v)
}

/// All labels of the running task, in the order in which they were first set.
pub fn labels() -> Vec<(String, String)> {
    // SAFETY: the task itself runs.
    let label = here().and_then(|h| unsafe { h.cell.label() });
    label.map_or_else(Vec::new, |l| l.pairs().iter().map(|(k, v)| ((**k).into(), (**v).into())).collect())
}

/// Sets how long one slice of the running task may last before it is reported as a stall, whatever the process's threshold
/// ([`set_latency_warning`](crate::set_latency_warning)) is; zero: however long. Returns what was in force before.
///
/// Rounded up to milliseconds; the slice that runs counts. On a plain thread it does nothing.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// coro::run(|| {
///     // A table is read in at the start: that may take its time.
///     let before = coro::set_own_latency_warning(Duration::from_secs(5));
///     coro::set_own_latency_warning(before);
/// });
/// ```
pub fn set_own_latency_warning(threshold: Duration) -> Duration {
    let Some(h) = here() else { return stall::meant(0) };
    let old = own_label(&h).latency_ms.swap(stall::own(threshold), Ordering::Relaxed);
    stall::meant(old)
}

/// Whether tasks that the running task spawns from now on get a copy of its labels, and pass it on in the same way;
/// returns what was said before. Off unless the task that spawned this one had it on.
///
/// # Examples
/// ```
/// coro::run(|| {
///     coro::set_label("req", 4711);
///     coro::inherit_labels(true);
///     let label = coro::spawn(|| coro::label("req")).join().unwrap();
///     assert_eq!(label.as_deref(), Some("4711"));
/// });
/// ```
pub fn inherit_labels(yes: bool) -> bool {
    here().is_some_and(|h| own_label(&h).inherit.swap(yes, Ordering::Relaxed))
}
