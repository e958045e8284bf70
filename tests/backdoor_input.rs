//! What the fuzzer of the backdoor begins with gets answers that harm nobody.

#[path = "backdoor_input/check.rs"]
mod check;

#[test]
#[cfg_attr(miri, ignore = "Miri has no sockets")]
fn every_seed_gets_a_harmless_answer() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/backdoor_input/seeds");
    let mut seeds = 0;
    for file in std::fs::read_dir(&folder).expect("the seeds") {
        let path = file.expect("a seed").path();
        println!("{}", path.display());
        check::check(&std::fs::read(&path).expect("a seed"));
        seeds += 1;
    }
    assert!(seeds >= 10, "{seeds} seeds in {}", folder.display());
}
