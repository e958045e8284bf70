//! Where specs come from: [`Store`], and the one in memory.
//!
//! Must not know: what becomes of specs.

#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::manager::Applied;
use super::spec::Spec;

/// One of a list: a spec, or what is wrong where there should be one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "stores of programs make them")]
pub struct Entry {
    /// Its id.
    pub id: String,
    /// What it says.
    pub spec: Result<Spec, String>,
}

impl From<Spec> for Entry {
    fn from(spec: Spec) -> Entry {
        Entry { id: spec.id.clone(), spec: Ok(spec) }
    }
}

/// What a store says at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[allow(clippy::exhaustive_structs, reason = "stores of programs make them")]
pub struct Listed {
    /// By what the store knows this list again: a number that grows, a hash, a time. Nobody else looks into it.
    pub version: String,
    /// All that there should be.
    pub entries: Vec<Entry>,
    /// Parts that could not be read, for people. What they said before is among the entries.
    pub troubles: Vec<String>,
}

/// A place where specs are kept, perhaps for many processes. A [`Manager`](super::Manager) asks it from its own thread or that of
/// whoever applies, never from a task that it delays unasked; it may wait, and a panic in it is reported like an error.
pub trait Store: Send + Sync + 'static {
    /// What there should be, or `None` if that is still what it was in the version `known`.
    ///
    /// # Errors
    /// If that cannot be found out now. Whoever asks leaves everything as it is then.
    fn list(&self, known: Option<&str>) -> io::Result<Option<Listed>>;

    /// Takes note of what has become of the specs of a version in this process. Called whenever that changes.
    ///
    /// # Errors
    /// If it cannot; nothing else becomes of it than that whoever asks is told.
    fn record(&self, version: &str, applied: &[Applied]) -> io::Result<()> {
        let _ = (version, applied);
        Ok(())
    }
}

impl<S: Store + ?Sized> Store for Arc<S> {
    fn list(&self, known: Option<&str>) -> io::Result<Option<Listed>> {
        (**self).list(known)
    }

    fn record(&self, version: &str, applied: &[Applied]) -> io::Result<()> {
        (**self).record(version, applied)
    }
}

/// Specs that the program keeps itself. A clone is the same store.
#[derive(Clone, Default)]
pub struct Memory {
    state: Arc<Mutex<Held>>,
}

#[derive(Default)]
struct Held {
    version: u64,
    specs: Vec<Spec>,
    recorded: Option<(String, Vec<Applied>)>,
}

impl Memory {
    /// An empty one.
    pub fn new() -> Memory {
        Memory::default()
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says what there should be from now on.
    pub fn set(&self, specs: impl IntoIterator<Item = Spec>) {
        let specs = specs.into_iter().collect();
        let mut held = self.lock();
        held.version += 1;
        held.specs = specs;
    }

    /// What became of them, with the version that it was, when it was recorded last.
    pub fn recorded(&self) -> Option<(String, Vec<Applied>)> {
        self.lock().recorded.clone()
    }
}

impl Store for Memory {
    fn list(&self, known: Option<&str>) -> io::Result<Option<Listed>> {
        let held = self.lock();
        let version = held.version.to_string();
        if known == Some(&version) {
            return Ok(None);
        }
        let entries = held.specs.iter().cloned().map(Entry::from).collect();
        Ok(Some(Listed { version, entries, troubles: Vec::new() }))
    }

    fn record(&self, version: &str, applied: &[Applied]) -> io::Result<()> {
        self.lock().recorded = Some((version.to_owned(), applied.to_vec()));
        Ok(())
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = self.lock();
        write!(f, "{} specs in memory, version {}", held.specs.len(), held.version)
    }
}
