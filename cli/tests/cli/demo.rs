//! A newcomer's first minute.

use crate::{Scratch, coro, run};

#[test]
fn the_demonstration_has_its_troubles_and_ends_with_the_session() {
    let scratch = Scratch::new("demo");
    let directory = scratch.path().to_str().expect("text");
    let (code, out, err) = run(coro(&["demo"]).env("XDG_RUNTIME_DIR", directory), "deadlocks\ntree\nobjects\n");
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let pid = out.split_whitespace().nth(1).expect("its id");
    assert!(out.starts_with(&format!("Process {pid} runs now")), "{out}");
    for trouble in ["deadlock", "account A", "\"front desk\"", "watcher", "lock \"db pool\"", "client"] {
        assert!(out.contains(trouble), "{trouble} is not in:\n{out}");
    }
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "process {pid} is still there");
}
