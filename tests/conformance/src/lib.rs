//! Runs the standard library's own tests against `coro`: tests that nobody here wrote.
//!
//! The tests are taken from the `rust-src` component when the test target runs, rewritten so that their paths lead to
//! `coro`, compiled beside `target/`, and run one process per test and mode. `README.md` tells how.
//!
//! Invariants: nothing of std lies in the repository; every test of the listed files is run or excluded by name with a
//! reason; an exclusion that is not needed any more fails the run.

pub mod examples;
pub mod exclusions;
pub mod generate;
pub mod lex;
pub mod report;
pub mod rewrite;
pub mod run;
pub mod suite;
