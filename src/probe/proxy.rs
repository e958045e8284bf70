//! One shared value, seen through wrappers by whoever asks for that, and by nobody else.
//!
//! Must not know: how a call finds its wrappers.

#![forbid(unsafe_code)]

use std::fmt;
use std::sync::Arc;

use super::attach::ProbeError;
use super::wrap::{Wrap, Wrapped};
use crate::observe::Scope;
use crate::scheduler::{is_in, with_scopes};

/// A shared value whose methods go through wrappers where it is used through this: the value itself is the same, and others who use
/// it see nothing of that.
///
/// # Examples
/// ```
/// use std::sync::Arc;
/// use coro::probe::{Proxy, wrap};
///
/// struct Mailer(&'static str);
///
/// impl Mailer {
///     #[coro::probe(wrap)]
///     fn send(&self, to: &str) -> String {
///         format!("{} has sent to {to}", self.0)
///     }
/// }
///
/// let shared = Arc::new(Mailer("mail.example.org"));
/// let silent = Proxy::of(shared.clone());
/// let silent = silent.wrap(wrap!("Mailer::send", |_send, this: &Mailer, _to: &str| -> String {
///     format!("{} stays silent", this.0)
/// })).unwrap();
///
/// assert_eq!(silent.with(|mailer| mailer.send("ada")), "mail.example.org stays silent");
/// assert_eq!(shared.send("ada"), "mail.example.org has sent to ada");
/// ```
pub struct Proxy<T> {
    instance: Arc<T>,
    scope: Arc<Scope>,
    wrapped: Vec<Wrapped>,
}

impl<T: Send + Sync + 'static> Proxy<T> {
    /// Of that value, with no wrapper yet.
    pub fn of(instance: Arc<T>) -> Proxy<T> {
        Proxy { instance, scope: Arc::default(), wrapped: Vec::new() }
    }

    /// With that wrapper, for that value alone, wherever else it said it is for.
    ///
    /// # Errors
    /// As [`Wrap::start`].
    pub fn wrap(mut self, wrap: Wrap) -> Result<Proxy<T>, ProbeError> {
        self.wrapped.push(wrap.only_for(&self.instance).within(&self.scope).start()?);
        Ok(self)
    }

    /// Uses the value: calls of its methods in `f`, and in tasks that are spawned there, go through the wrappers. Those tasks see it
    /// so for as long as they and this last.
    pub fn with<R>(&self, f: impl FnOnce(&T) -> R) -> R {
        /// However `f` ends.
        struct Entered<'a>(&'a Arc<Scope>);

        impl Drop for Entered<'_> {
            fn drop(&mut self) {
                with_scopes(|scopes| scopes.leave(self.0));
            }
        }

        // Whoever is in it already leaves it where he entered it.
        let _entered = (!is_in(&self.scope)).then(|| {
            with_scopes(|scopes| scopes.enter(&self.scope));
            Entered(&self.scope)
        });
        f(&self.instance)
    }

    /// The value itself.
    pub fn original(&self) -> &Arc<T> {
        &self.instance
    }

    /// Its wrappers, in the order in which they were added.
    pub fn wrapped(&self) -> &[Wrapped] {
        &self.wrapped
    }
}

impl<T> Drop for Proxy<T> {
    fn drop(&mut self) {
        self.scope.end();
    }
}

impl<T> fmt::Debug for Proxy<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").field("wrapped", &self.wrapped).finish_non_exhaustive()
    }
}
