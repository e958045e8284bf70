//! The single edit: `std::` becomes `coro::`.

use std::env;
use std::fs;
use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=src/program.rs");
    println!("cargo::rerun-if-changed=build.rs");
    let text = fs::read_to_string("src/program.rs").expect("the program lies beside this script");
    let edited = text.replace("std::", "coro::");
    assert_ne!(text, edited, "the edit must change something");
    // A file that is included cannot open with the documentation of its module.
    let edited = edited.replace("//!", "//");
    let out = env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
    fs::write(Path::new(&out).join("program.rs"), edited).expect("OUT_DIR can be written");
}
