//! Names for a program that has none.

use std::process::Command;

use crate::server::Server;
use crate::{Scratch, coro, run};

#[test]
fn a_stripped_programs_dump_is_named_by_the_file_from_before() {
    let scratch = Scratch::new("stripped");
    let whole = std::env::current_exe().expect("this program");
    let stripped = scratch.join("app");
    match Command::new("strip").arg("-o").arg(&stripped).arg(&whole).output() {
        Ok(output) if output.status.success() => {}
        other => return println!("skipped: strip: {other:?}"),
    }
    let server = Server::start_as("stripped-server", &stripped);
    let (code, dump, _) = run(&mut coro(&["where", &server.pid()]), "");
    assert_eq!(code, 0);
    let holder = |text: &str| text.lines().find(|line| line.contains("s \"holder\" ")).expect("the holder").to_owned();
    assert!(holder(&dump).contains("[app+0x"), "{}", holder(&dump));

    let given = format!("app={}", whole.display());
    let (code, named, err) = run(&mut coro(&["symbolize", &given]), &dump);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(
        holder(&named).contains("[cli/server.rs ") && holder(&named).contains("::server::hold|"),
        "{}",
        holder(&named)
    );
    assert_eq!(named.lines().count(), dump.lines().count());
    // Found by the build id alone, which the dump's end has.
    if dump.contains("(build id ") {
        let (code, by_id, _) = run(&mut coro(&["symbolize", whole.to_str().expect("text")]), &dump);
        assert_eq!((code, holder(&by_id)), (0, holder(&named)));
        // And a file of another build is not believed.
        let other = format!("app={}", env!("CARGO_BIN_EXE_coro"));
        let (code, text, err) = run(&mut coro(&["symbolize", &other]), &dump);
        assert_eq!((code, holder(&text)), (1, holder(&dump)));
        assert!(err.contains("is of another build and was not used"), "{err}");
    }
    let (code, _, err) = run(&mut coro(&["symbolize", stripped.to_str().expect("text")]), "");
    assert!(code == 1 && err.contains("it has no symbols either"), "{err}");
}
