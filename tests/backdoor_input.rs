//! What the fuzzer of the backdoor begins with gets answers that harm nobody.

use std::path::{Path, PathBuf};
#[cfg(feature = "script")]
use std::time::{Duration, Instant};

#[path = "backdoor_input/check.rs"]
mod check;

fn seeds() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/backdoor_input/seeds")
}

#[test]
#[cfg_attr(miri, ignore = "Miri has no sockets")]
fn every_seed_gets_a_harmless_answer() {
    let mut seen = 0;
    for file in std::fs::read_dir(seeds()).expect("the seeds") {
        let path = file.expect("a seed").path();
        println!("{}", path.display());
        check::check(&std::fs::read(&path).expect("a seed"));
        seen += 1;
    }
    assert!(seen >= 10, "{seen} seeds in {}", seeds().display());
}

/// Otherwise the fuzzer would look at answers alone. The seeds sleep by an expression.
#[cfg(feature = "script")]
#[test]
#[cfg_attr(miri, ignore = "Miri has no sockets")]
fn the_seeds_with_probes_get_lines_of_them_too() {
    for (seed, line) in [
        ("probe", "\nfuzz::\\u{1b}[2Jcall\\n(text=\"\\u{1b}]0;x\\u{7}\", n="),
        ("probe-text", "\n{\"probe\":\"backdoor_input::check::looked key=\\\"two\\\\nlines\\\\r\\\", odd=1"),
        ("probe-break", " stopped: fuzz::\\u{1b}[2Jcall\\n(text=\"two\\nlines\\r\", n="),
        ("trace", "peer\\u{1b}[31m\\n, #"),
        ("probe-unfinished", " is over: its 3 hits are used up; 3 hits\n"),
    ] {
        let input = std::fs::read(seeds().join(seed)).expect("a seed");
        // While the worker is at something else, nobody passes.
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let answer = check::check(&input);
            if answer.contains(line) {
                break;
            }
            assert!(Instant::now() < until, "{seed} without {line}: {answer}");
        }
    }
}
