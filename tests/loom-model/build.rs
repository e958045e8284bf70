//! The shipped files ask `cfg(loom)` in two or three places (a constructor that cannot be `const` in a model). It holds
//! in this crate alone: set by a flag for all crates it would also change the dependencies.

fn main() {
    println!("cargo::rustc-check-cfg=cfg(loom)");
    println!("cargo::rustc-cfg=loom");
    println!("cargo::rerun-if-changed=build.rs");
}
