//! That the address sanitizer watches tasks at all; empty unless built for it (`.ci/asan`).
#![cfg(coro_asan)]

use std::hint::black_box;
use std::process::Command;

const CHILD: &str = "CORO_TEST_ASAN_CHILD";

/// Runs this test again in a child process that makes the error, and gives what the sanitizer wrote.
fn report_of(test: &str, error: fn()) -> String {
    if std::env::var_os(CHILD).is_some() {
        error();
        println!("nobody noticed");
        std::process::exit(0);
    }
    let out = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    assert!(!out.status.success(), "{}", String::from_utf8_lossy(&out.stdout));
    String::from_utf8_lossy(&out.stderr).into_owned()
}

#[test]
fn a_write_behind_a_block_is_caught_inside_a_task() {
    let report = report_of("a_write_behind_a_block_is_caught_inside_a_task", || {
        coro::run(|| {
            let block = vec![0u8; 64];
            coro::yield_slice();
            // SAFETY: none; this is the error.
            unsafe { block.as_ptr().cast_mut().add(black_box(64)).write(1) };
        });
    });
    assert!(report.contains("heap-buffer-overflow"), "{report}");
}

#[test]
fn a_write_behind_a_variable_is_caught_on_a_tasks_stack_after_a_switch() {
    let report = report_of("a_write_behind_a_variable_is_caught_on_a_tasks_stack_after_a_switch", || {
        coro::run(|| {
            let mut block = [0u8; 64];
            coro::yield_slice();
            let p = black_box(block.as_mut_ptr());
            // SAFETY: none; this is the error.
            unsafe { p.add(black_box(64)).write(1) };
            black_box(block);
        });
    });
    assert!(report.contains("stack-buffer-overflow"), "{report}");
}
