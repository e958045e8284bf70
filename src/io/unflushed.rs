//! Which task's buffers hold bytes that nobody has sent yet.
//!
//! Invariants: a writer is entered here once for each task that fills it, not for each write: from then on it only says how much it
//! holds. What a writer that is gone has left here is cleared when room is needed. Whoever looks takes no lock that somebody else
//! holds; he sees nothing then.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::scheduler::suspend::here;

/// What one writer holds.
#[derive(Debug)]
struct Unflushed {
    bytes: AtomicUsize,
    /// Who filled it last, while it was empty; 0: a plain thread.
    task: AtomicU64,
}

/// A writer's part: what it holds, told to whoever looks.
#[derive(Debug, Default)]
pub(super) struct Held(Option<Arc<Unflushed>>);

/// Writers by the task that has filled them.
#[derive(Debug)]
struct Shard {
    writers: BTreeMap<u64, Vec<Arc<Unflushed>>>,
    /// When there are more tasks than that, those whose writers are gone are cleared.
    room: usize,
}

const ROOM: usize = 16;

static SHARDS: [Mutex<Shard>; 64] = [const { Mutex::new(Shard { writers: BTreeMap::new(), room: ROOM }) }; 64];

fn shard(task: u64) -> &'static Mutex<Shard> {
    &SHARDS[task as usize % SHARDS.len()]
}

/// Keeps those of a task whose writers are there, and are still that task's.
fn keep_own(task: u64, writers: &mut Vec<Arc<Unflushed>>) {
    writers.retain(|held| Arc::strong_count(held) > 1 && held.task.load(Ordering::Relaxed) == task);
}

impl Held {
    /// It holds so many bytes now.
    #[inline]
    pub(super) fn set(&mut self, bytes: usize) {
        let before = match &self.0 {
            Some(held) => {
                let before = held.bytes.load(Ordering::Relaxed);
                held.bytes.store(bytes, Ordering::Relaxed);
                before
            }
            None => 0,
        };
        if before == 0 && bytes > 0 {
            self.enter(bytes);
        }
    }

    /// Its first bytes: they are those of the running task.
    fn enter(&mut self, bytes: usize) {
        let task = here().map_or(0, |h| h.id());
        let held = self
            .0
            .get_or_insert_with(|| Arc::new(Unflushed { bytes: AtomicUsize::new(bytes), task: AtomicU64::new(0) }));
        if held.task.swap(task, Ordering::Relaxed) == task || task == 0 {
            return;
        }
        let mut shard = shard(task).lock().unwrap_or_else(PoisonError::into_inner);
        if shard.writers.len() >= shard.room {
            shard.writers.retain(|task, writers| {
                keep_own(*task, writers);
                !writers.is_empty()
            });
            shard.room = ROOM.max(2 * shard.writers.len());
        }
        let mine = shard.writers.entry(task).or_default();
        if mine.len() == mine.capacity() {
            keep_own(task, mine);
        }
        if !mine.iter().any(|other| Arc::ptr_eq(other, held)) {
            mine.push(held.clone());
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(held) = &self.0 {
            held.bytes.store(0, Ordering::Relaxed);
        }
    }
}

/// How many bytes the buffers hold that this task has filled.
pub(crate) fn unflushed(task: u64) -> usize {
    let Ok(shard) = shard(task).try_lock() else { return 0 };
    let of = |held: &&Arc<Unflushed>| held.task.load(Ordering::Relaxed) == task;
    let mine = shard.writers.get(&task).into_iter().flatten();
    mine.filter(of).map(|held| held.bytes.load(Ordering::Relaxed)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::Runtime;

    #[test]
    fn what_is_held_is_that_of_the_task_that_filled_it() {
        let runtime = Runtime::builder().workers(1).build().unwrap();
        let mut moved = runtime.block_on(|| {
            let id = here().expect("a task").id();
            let (mut one, mut two) = (Held::default(), Held::default());
            one.set(5);
            two.set(7);
            one.set(6);
            assert_eq!(unflushed(id), 13);
            two.set(0);
            assert_eq!(unflushed(id), 6);
            drop(one);
            assert_eq!(unflushed(id), 0);
            // Many that come and go leave no trace.
            for _ in 0..1000 {
                Held::default().set(1);
            }
            assert!(shard(id).lock().unwrap().writers[&id].capacity() < 100);
            two.set(3);
            (id, two)
        });
        assert_eq!(unflushed(moved.0), 3);
        runtime.block_on(move || {
            let id = here().expect("a task").id();
            moved.1.set(0);
            moved.1.set(4);
            assert_eq!((unflushed(id), unflushed(moved.0)), (4, 0));
        });
    }
}
