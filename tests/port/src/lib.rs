//! One program, twice.

#![cfg(test)]

/// As it was written.
#[path = "program.rs"]
mod with_std;

/// After `s/std::/coro::/`, which the build script does.
mod with_coro {
    include!(concat!(env!("OUT_DIR"), "/program.rs"));
}

/// Runs it as a task of a runtime with so many workers.
fn in_a_task(workers: usize) -> String {
    let runtime = coro::Runtime::builder().workers(workers).build().expect("a runtime");
    runtime.block_on(with_coro::program)
}

fn same(found: &str) {
    let expected = with_std::program();
    // The parts that matter were there, whatever they said.
    for part in ["store:", "pool:", "wait:", "timeouts:", "datagrams:", "locals:", "scope:", "once:", "panics:"] {
        assert!(expected.contains(part), "{part} is missing in:\n{expected}");
    }
    assert_eq!(found, expected);
}

#[test]
fn says_the_same_on_a_plain_thread() {
    same(&with_coro::program());
}

#[test]
fn says_the_same_in_a_task_with_one_worker() {
    same(&in_a_task(1));
}

#[test]
fn says_the_same_in_a_task_with_four_workers() {
    same(&in_a_task(4));
}
