//! A session at a prompt, and without one.

use std::os::unix::fs::PermissionsExt as _;

use crate::fake::Fake;
use crate::server::Server;
use crate::terminal::Terminal;
use crate::{Scratch, coro, run, until};

fn attach(path: &str) -> String {
    format!("'{}' attach '{path}'", env!("CARGO_BIN_EXE_coro"))
}

#[test]
fn lines_that_are_piped_in_are_questions() {
    let server = Server::common();
    let (code, out, err) = run(&mut coro(&["attach", &server.pid()]), "objects\n\n  memory\n");
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.starts_with("lock \"pool\"") && out.contains("\nresident "), "{out}");
    assert!(!out.contains("read> ") && !out.contains("\ntasks "), "{out}");

    let (code, out, err) = run(&mut coro(&["attach", &server.pid()]), "wherever\nobjects\nquit\nmemory\n");
    assert!(code == 1 && err.contains("unknown command"), "{err}");
    assert!(out.starts_with("lock \"pool\"") && !out.contains("resident"), "{out}");
}

#[test]
fn a_prompt_with_editing_completion_history_and_tiers() {
    let server = Server::common();
    let scratch = Scratch::new("prompt");
    let state = scratch.join("state");
    let environment = [("XDG_STATE_HOME", state.to_str().expect("text")), ("PAGER", "cat")];
    let Some(terminal) = Terminal::start(120, 50, &environment, &attach(&server.pid())) else { return };
    let prompt = format!("[{}] read>", server.pid());
    let screen = terminal.wait_for(&prompt);
    assert!(screen.contains("help lists the commands") && screen.contains("\ntasks "), "{screen}");

    // Commands, then tasks by a part of the name.
    terminal.press(&["obj", "Tab"]);
    terminal.wait_for("read> objects");
    terminal.press(&["C-u", "where hold", "Tab"]);
    terminal.wait("the id of the holder", |screen| {
        screen
            .lines()
            .any(|line| line.split_once("read> where ").is_some_and(|(_, id)| id.trim().parse::<u64>().is_ok()))
            || screen.contains("\"holder\" parked")
    });
    terminal.press(&["C-u", "where holx", "BSpace", "BSpace", "BSpace", "BSpace", "nonsense", "Enter"]);
    terminal.wait_for("\"nonsense\" is not a task's id");
    terminal.press(&["enable act", "Enter"]);
    terminal.wait_for(&format!("[{}] act>", server.pid()));
    // What was asked before, by the arrow.
    terminal.press(&["Up", "Up", "Enter"]);
    terminal.wait("the question a second time, and the prompt", |screen| {
        screen.contains("act> where nonsense") && screen.matches("act>").count() == 2
    });
    // Ctrl-C at the prompt forgets the line and leaves nothing else.
    terminal.press(&["half a line", "C-c"]);
    terminal.press(&["objects", "Enter"]);
    terminal.wait("the lock", |screen| screen.lines().any(|line| line.starts_with("lock \"pool\"")));
    assert!(terminal.coloured().contains("\x1b["), "no colours");
    terminal.press(&["C-d"]);
    terminal.wait_for("ended with 0");

    let history = state.join("coro/history");
    assert_eq!(std::fs::metadata(&history).expect("a history").permissions().mode() & 0o777, 0o600);
    let lines = std::fs::read_to_string(&history).expect("text");
    assert!(lines.contains("enable act\n") && lines.contains("objects\n"), "{lines}");
    let Some(terminal) = Terminal::start(80, 24, &environment, &attach(&server.pid())) else { return };
    terminal.wait_for("read>");
    terminal.press(&["Up"]);
    terminal.wait_for("read> objects");
}

#[test]
fn a_long_answer_goes_through_the_pager_and_no_colours_if_one_does_not_want_them() {
    let server = Server::common();
    let scratch = Scratch::new("pager-state");
    let shown = scratch.join("shown");
    let pager = format!("cat > {}", shown.display());
    let environment =
        [("XDG_STATE_HOME", scratch.path().to_str().expect("text")), ("PAGER", &pager), ("NO_COLOR", "1")];
    let Some(terminal) = Terminal::start(80, 24, &environment, &attach(&server.pid())) else { return };
    terminal.wait_for("read>");
    terminal.press(&["where_all", "Enter"]);
    let text = until("the pager's file", || match std::fs::read_to_string(&shown) {
        Ok(text) if text.contains(" tasks: ") => Ok(text),
        other => Err(format!("{other:?}")),
    });
    assert!(text.contains("\"idle 3\"") && !text.contains('\x1b'), "{text}");
    assert!(!terminal.screen().contains("\"idle 3\""), "{}", terminal.screen());
}

#[test]
fn ctrl_c_ends_the_answer_and_not_the_client() {
    let fake = Fake::start("ctrl-c", |talk| {
        talk.greet();
        talk.expect("help");
        talk.say("{\"line\":\"endless   never ends\"}\n{\"done\":\"help\"}\n");
        talk.expect("status");
        talk.say("{\"line\":\"all is well\"}\n{\"done\":\"status\"}\n");
        talk.expect("endless");
        talk.say("{\"line\":\"line 1\"}\n");
        talk.expect_byte(3);
        talk.expect("#lines");
        // What was on its way, as if the answer had ended just before, and then the answer to the interrupt.
        talk.say("{\"done\":\"endless\"}\n{\"done\":\"#lines\"}\n");
        talk.expect("objects");
        talk.say("{\"line\":\"still there\"}\n{\"done\":\"objects\"}\n");
    });
    let scratch = Scratch::new("ctrl-c-state");
    let environment = [("XDG_STATE_HOME", scratch.path().to_str().expect("text")), ("NO_COLOR", "1")];
    let Some(terminal) = Terminal::start(80, 24, &environment, &attach(&fake.path())) else { return };
    let screen = terminal.wait_for("fake[1] read>");
    assert!(screen.contains("all is well"), "{screen}");
    terminal.press(&["endless", "Enter"]);
    // It is shown though the answer has no end.
    terminal.wait_for("line 1");
    terminal.press(&["C-c"]);
    terminal.wait("the prompt again", |screen| screen.matches("read>").count() == 2);
    terminal.press(&["objects", "Enter"]);
    terminal.wait_for("still there");
    terminal.press(&["C-d"]);
    terminal.wait_for("ended with 0");
    fake.finish();
}

#[test]
fn a_program_that_ends_is_told() {
    let mut server = Server::start("ends");
    let scratch = Scratch::new("ends-state");
    let environment = [("XDG_STATE_HOME", scratch.path().to_str().expect("text"))];
    let Some(terminal) = Terminal::start(80, 24, &environment, &attach(&server.path())) else { return };
    terminal.wait_for("read>");
    server.kill();
    terminal.press(&["objects", "Enter"]);
    let screen = terminal.wait_for("ended with 1");
    assert!(screen.contains("nobody serves it any more"), "{screen}");
}
