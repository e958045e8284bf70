//! Managers of paths that were named from outside of the program: at the console, in the environment. Each path has one, which
//! stays, so that to apply a file again is to apply what has changed in it.
//!
//! Must not know: who named a path.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::super::attach::Attached;
use super::super::view;
use super::files::{Directory, Either, File};
use super::manager::{Applied, Manager, State};

/// How often watched paths are looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// Of a directory with thousands of specs, so many are named in an answer.
const MOST_LINES: usize = 1000;

static KNOWN: Mutex<BTreeMap<PathBuf, Arc<Manager>>> = Mutex::new(BTreeMap::new());

fn known() -> MutexGuard<'static, BTreeMap<PathBuf, Arc<Manager>>> {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The manager of a path, and by which path it is known.
fn manager_of(path: &Path, tell_as: Option<String>) -> Result<(Arc<Manager>, PathBuf), String> {
    let path = std::path::absolute(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let make = || {
        let store = Either { file: File::new(&*path), directory: Directory::new(&*path) };
        Arc::new(Manager::with(Some(Box::new(store)), tell_as))
    };
    Ok((known().entry(path.clone()).or_insert_with(make).clone(), path))
}

/// Applies what a file or a directory says now; a line for each spec.
pub(crate) fn apply_path(path: &str) -> Result<Vec<String>, String> {
    let (manager, known_as) = manager_of(Path::new(path), None)?;
    let applied = manager.refresh();
    if !manager.has_listed() && !manager.is_watched() {
        // Whoever mistypes a path leaves nothing behind.
        known().remove(&known_as);
    }
    let applied = applied.map_err(|e| format!("{path}: {e}"))?;
    let mut lines: Vec<String> = applied.iter().take(MOST_LINES).map(|one| line(&manager, one)).collect();
    if applied.len() > MOST_LINES {
        lines.push(format!("({} more)", applied.len() - MOST_LINES));
    }
    lines.extend(manager.troubles());
    if lines.is_empty() {
        lines.push(format!("there is no spec in {path}"));
    }
    Ok(lines)
}

fn line(manager: &Manager, one: &Applied) -> String {
    let on = |probe: &Attached| view::what_and_where(probe);
    match (&one.state, one.changed) {
        (State::Attached { .. }, true) => match manager.probe(&one.id, on) {
            Some(on) => format!("{}: {on}", one.id),
            None => one.to_string(),
        },
        _ => one.to_string(),
    }
}

/// Applies what a file or a directory says, now and whenever it changes, and tells on stderr what goes wrong.
pub(crate) fn watch_path(path: &str) -> Result<(), String> {
    let (manager, _) = manager_of(Path::new(path), Some(format!("probes of {path}")))?;
    manager.watch(INTERVAL).map_err(|e| e.to_string())
}
