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
        talk.expect("status --json");
        talk.say("{\"error\":\"this program was built without JSON: add the feature\"}\n{\"done\":\"x\"}\n");
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
    assert!(err.contains("needs a terminal") && err.contains("--once"), "{err}");
}

#[test]
fn scripts_have_it_once_as_text_and_as_json() {
    let server = Server::common();
    let json = std::thread::spawn(|| run(&mut coro(&["top", "--json", &Server::common().pid()]), ""));
    let (code, text, err) = run(&mut coro(&["top", &server.pid(), "--once"]), "");
    assert_eq!((code, err.as_str()), (0, ""), "{text}");
    let tasks = crate::server::IDLE + 3;
    let mut lines = text.lines();
    let first = lines.next().expect("numbers");
    assert!(first.contains(&format!("[{}]  {tasks} tasks: 0 running, ", server.pid())), "{text}");
    assert!(lines.next().is_some_and(|line| line.starts_with("worker 0 ")), "{text}");
    assert!(text.contains("  ID STATE     CPU%   TIME    FOR    AGE  NAME"), "{text}");
    let waiter = text.lines().find(|line| line.contains("db \\u{1b}[2Jwriter")).expect("the waiter");
    assert!(waiter.contains(" parked     0.0 ") && waiter.contains("  lock \"pool\" "), "{waiter}");
    assert_eq!(text.lines().filter(|line| line.contains("  idle ")).count(), crate::server::IDLE, "{text}");

    let (code, out, err) = json.join().expect("the other one");
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let rows: Vec<serde_json::Value> = out.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert_eq!((&rows[0]["head"]["answer"], &rows[0]["head"]["rows"]), (&"top".into(), &(tasks + 1).into()));
    assert_eq!(rows[1]["status"]["workers"].as_array().map(Vec::len), Some(2), "{out}");
    assert!(rows.iter().filter(|row| row["task"].is_object()).all(|row| row["task"]["share"].is_f64()), "{out}");
}
