//! The live table, as it is seen.

use crate::fake::Fake;
use crate::server::Server;
use crate::terminal::Terminal;
use crate::{coro, run};

fn top(path: &str) -> String {
    format!("'{}' top '{path}'", env!("CARGO_BIN_EXE_coro"))
}

#[test]
fn tasks_workers_and_a_stack_at_every_size() {
    let mut server = Server::start("top");
    let Some(terminal) = Terminal::start(80, 24, &[], &top(&server.pid())) else { return };
    let screen = terminal.wait_for("33 tasks: 0 running, 0 runnable, 0 unstarted, 33 parked");
    assert!(screen.lines().next().expect("a title").contains(&format!("[{}]  coro ", server.pid())), "{screen}");
    assert!(screen.contains("\nworker 0   [") && screen.contains("\nworker 1   ["), "{screen}");
    assert!(screen.contains(" ID STATE ") && screen.contains(" NAME ") && screen.contains(" WAITS FOR"), "{screen}");

    // A filter, and the whole stack of what it leaves.
    terminal.press(&["/", "pool", "Enter"]);
    terminal.wait("the waiter alone", |screen| screen.contains("db \\u{1b}[2J") && !screen.contains(" idle "));
    terminal.press(&["Enter"]);
    let screen = terminal.wait_for("the whole stack, innermost first");
    assert!(screen.contains("Mutex"), "{screen}");
    // Wider: more columns, and names to their ends.
    terminal.resize(200, 50);
    terminal.wait("the wide screen", |screen| {
        ["SLICES LONGEST WORKER NAME", "lock \"pool\"", " db \\u{1b}[2Jwriter "]
            .iter()
            .all(|text| screen.contains(text))
    });
    terminal.resize(60, 15);
    terminal.wait("the small screen", |screen| !screen.contains("SLICES") && screen.contains("#"));
    terminal.press(&["Escape"]);
    terminal.resize(80, 24);
    terminal
        .wait("no stack any more", |screen| screen.contains("db \\u{1b}[2J") && !screen.contains("the whole stack"));

    server.kill();
    terminal.wait_for("GONE");
    terminal.press(&["q"]);
    let screen = terminal.wait_for("ended with 0");
    assert!(!screen.contains("GONE"), "the screen from before is not there: {screen}");
}

#[test]
fn without_json_there_is_the_status() {
    let fake = Fake::start("text", |talk| {
        talk.greet();
        for question in ["workers --json", "where_all --json"] {
            talk.expect(question);
            talk.say("{\"error\":\"this program was built without JSON: add the feature\"}\n{\"done\":\"x\"}\n");
        }
        talk.expect("status");
        talk.say("{\"line\":\"tasks      5: 5 parked\"}\n{\"done\":\"status\"}\n");
    });
    let Some(terminal) = Terminal::start(80, 24, &[], &top(&fake.path())) else { return };
    let screen = terminal.wait_for("tasks      5: 5 parked");
    assert!(screen.contains("this program was built without JSON: add the feature. Without it"), "{screen}");
}

#[test]
fn it_wants_a_terminal() {
    let server = Server::common();
    let (code, out, err) = run(&mut coro(&["top", &server.pid()]), "");
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("needs a terminal") && err.contains("--json"), "{err}");
}
