//! The backdoor as a fuzz target; what must hold is said in `tests/backdoor_input/check.rs`.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/backdoor_input/check.rs"]
mod check;

fuzz_target!(|input: &[u8]| drop(check::check(input)));
