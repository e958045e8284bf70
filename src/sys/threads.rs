//! The threads of this process, as far as the system tells.

#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicUsize, Ordering};

/// Threads that this crate started and that run.
static OWN: AtomicUsize = AtomicUsize::new(0);

/// Held by a thread of this crate for as long as it runs, so that it is not taken for one of the program's.
#[derive(Debug)]
pub(crate) struct Own(());

impl Own {
    pub(crate) fn new() -> Own {
        OWN.fetch_add(1, Ordering::SeqCst);
        Own(())
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        OWN.fetch_sub(1, Ordering::SeqCst);
    }
}

/// How many threads there are that this crate did not start. `None` where the system does not tell, or there is no
/// descriptor to ask with.
pub(crate) fn foreign() -> Option<usize> {
    if cfg!(not(target_os = "linux")) {
        return None;
    }
    // A thread of ours that ends meanwhile is counted as foreign; that one begins is the same the other way round, hence the
    // second look.
    let own = OWN.load(Ordering::SeqCst);
    let stat = std::fs::read("/proc/self/stat").ok()?;
    let all = thread_count(&stat)?;
    (OWN.load(Ordering::SeqCst) == own).then(|| all.saturating_sub(own))
}

/// The 20th field of `/proc/PID/stat` (proc_pid_stat(5)). The second is the name in parentheses, which may hold anything.
fn thread_count(stat: &[u8]) -> Option<usize> {
    let end = stat.iter().rposition(|b| *b == b')')?;
    std::str::from_utf8(&stat[end + 1..]).ok()?.split_ascii_whitespace().nth(17)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_is_found_behind_any_name() {
        let stat = b"17 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 42 18 19";
        assert_eq!(thread_count(stat), Some(42));
        assert_eq!(thread_count(b"17 (a"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_thread_that_asks_is_foreign() {
        assert!(foreign().is_none_or(|n| n >= 1));
        assert!(std::fs::read("/proc/self/stat").is_ok_and(|s| thread_count(&s).is_some_and(|n| n >= 1)));
    }
}
