//! The threads of this process, as far as the system tells.

#![forbid(unsafe_code)]

use std::io;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

/// Threads that this crate started and that run.
static OWN: AtomicUsize = AtomicUsize::new(0);

/// Their numbers, as far as there is room; 0 is a free place. A thread that begins may have no memory to allocate from, and
/// must not wait for a lock.
static NUMBERS: [AtomicI32; 1024] = [const { AtomicI32::new(0) }; 1024];

/// Held by a thread of this crate for as long as it runs, so that it is not taken for one of the program's.
#[derive(Debug)]
pub(crate) struct Own {
    /// The place of its number.
    place: Option<&'static AtomicI32>,
}

impl Own {
    /// On the thread itself.
    pub(crate) fn new() -> Own {
        OWN.fetch_add(1, Ordering::SeqCst);
        let me = super::thread_id();
        let take = |place: &&AtomicI32| place.compare_exchange(0, me, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        Own { place: NUMBERS.iter().find(take) }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            place.store(0, Ordering::Relaxed);
        }
        OWN.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Whether this crate started the thread with that number. Of more than a thousand some are not known.
pub(crate) fn is_own(thread: i32) -> bool {
    thread > 0 && NUMBERS.iter().any(|number| number.load(Ordering::Relaxed) == thread)
}

/// The numbers of all threads, in order.
///
/// # Errors
/// Where the system has no such list, or there is no descriptor to read it with.
pub(crate) fn all() -> io::Result<Vec<i32>> {
    if cfg!(any(not(target_os = "linux"), miri)) {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "this system does not list a process's threads"));
    }
    let mut all = Vec::new();
    for entry in std::fs::read_dir("/proc/self/task")? {
        all.extend(entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    all.sort_unstable();
    Ok(all)
}

/// A thread's name; `None` if it has ended.
pub(crate) fn name(thread: i32) -> Option<String> {
    let name = std::fs::read(format!("/proc/self/task/{thread}/comm")).ok()?;
    let name = name.strip_suffix(b"\n").unwrap_or(&name);
    Some(String::from_utf8_lossy(name).into_owned())
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

    #[cfg(all(target_os = "linux", not(miri)))]
    #[test]
    fn a_thread_of_ours_is_known_while_it_runs() {
        let listed = |me: i32| all().expect("a list").contains(&me);
        let me = std::thread::Builder::new()
            .name("mine".into())
            .spawn(move || {
                let me = crate::sys::thread_id();
                assert!(listed(me) && !is_own(me));
                let own = Own::new();
                assert!(is_own(me));
                assert_eq!(name(me).as_deref(), Some("mine"));
                drop(own);
                assert!(!is_own(me));
                me
            })
            .expect("a thread")
            .join()
            .expect("no panic");
        assert!(!is_own(me) && !is_own(0));
        assert_eq!(name(i32::MAX), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_thread_that_asks_is_foreign() {
        assert!(foreign().is_none_or(|n| n >= 1));
        assert!(std::fs::read("/proc/self/stat").is_ok_and(|s| thread_count(&s).is_some_and(|n| n >= 1)));
    }
}
