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
fn expressions_go_over_lines() {
    let server = Server::common();
    let lines = "tasks()\n .len() > 3\n[1,\n 2] // two\nlet n = (\n40 +\n2)\nn\nfds \\\n --json\n(\n\nweather\n";
    let (code, out, err) = run(&mut coro(&["attach", &server.pid()]), lines);
    let mut answers = out.lines();
    // `tasks()` alone is the command; then comes what is no expression.
    assert!(answers.any(|line| line.contains("\"holder\"")), "{out}");
    assert!(out.contains("\n1\n2\n42\n") && out.contains("\n{\"head\":") && out.ends_with("fine\n"), "{out}");
    // The bracket that was never closed, and `.len()`.
    assert!(code == 1 && err.lines().count() == 2, "{err}");

    let scratch = Scratch::new("lines-state");
    let environment = [("XDG_STATE_HOME", scratch.path().to_str().expect("text")), ("PAGER", "cat")];
    let Some(terminal) = Terminal::start(100, 30, &environment, &attach(&server.pid())) else { return };
    terminal.wait_for("read>");
    terminal.press(&["let idle = tasks().filter(|t|", "Enter"]);
    terminal.wait("the other prompt", |screen| screen.lines().any(|line| line.trim_end() == "..."));
    terminal.press(&["t.cla", "Tab"]);
    terminal.wait("a field of tasks", |screen| screen.lines().any(|line| line.trim_end() == "... t.class"));
    terminal.press(&[" == \"idle\"); idle.len()", "Enter"]);
    terminal.wait("how many", |screen| screen.lines().any(|line| line == crate::server::IDLE.to_string()));
    // The variable, a function and a value of the program.
    terminal.press(&["idl", "Tab"]);
    terminal.wait_for("read> idle");
    terminal.press(&["C-u", "set_l", "Tab"]);
    terminal.wait_for("read> set_limit(");
    terminal.press(&["C-u", "weat", "Tab", "Enter"]);
    terminal.wait("the value", |screen| screen.lines().any(|line| line == "fine"));
    terminal.press(&["tasks state=par", "Tab"]);
    terminal.wait_for("read> tasks state=parked");
    // Ctrl-C forgets what was begun, and the next line is one of its own.
    terminal.press(&["C-u", "[1,", "Enter"]);
    terminal.wait("the other prompt", |screen| screen.trim_end().ends_with("[1,\n..."));
    terminal.press(&["C-c"]);
    terminal.wait("the prompt", |screen| screen.trim_end().ends_with("read>"));
    terminal.press(&["weather", "Enter"]);
    terminal.wait("the value again", |screen| screen.lines().filter(|line| *line == "fine").count() == 2);
    // As one line again.
    terminal.press(&["Up", "Up", "Up"]);
    terminal.wait_for("read> let idle = tasks().filter(|t| t.class == \"idle\"); idle.len()");
}

#[test]
fn every_word_that_is_completed_is_one_that_the_server_knows() {
    let server = Server::common();
    let words: Vec<String> = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/attach/vocabulary.rs"))
        .expect("the words")
        .lines()
        .map(str::to_owned)
        .collect();
    let of = |name: &str| -> Vec<String> {
        let mut list = words.iter().skip_while(|line| !line.contains(&format!("const {name}:")));
        let first = list.next().unwrap_or_else(|| panic!("{name} is not there"));
        let all: String = match first.ends_with("];") {
            true => first.clone(),
            false => list.take_while(|line| !line.starts_with("];")).map(String::as_str).collect(),
        };
        all.split('"').skip(1).step_by(2).map(str::to_owned).collect()
    };
    let mut questions: Vec<String> = Vec::new();
    for (field, list) in [("state", "STATES"), ("wait", "WAITS"), ("by", "GROUPS"), ("sort", "ORDERS")] {
        questions.extend(of(list).iter().map(|word| format!("tasks {field}={word} limit=1")));
    }
    let example = |filter: &str| match filter.trim_end_matches(['=', '~', '>', '.']) {
        "age" | "delay" | "longest" | "run" => "5s",
        "label" => "x=1",
        "state" => "parked",
        "wait" => "lock",
        "by" => "class",
        "sort" => "age",
        _ => "1",
    };
    questions.extend(of("FILTERS").iter().map(|filter| format!("tasks {filter}{}", example(filter))));
    // A method that is not there is not found whatever it is given.
    questions.extend(of("METHODS").iter().map(|name| {
        let of =
            |value: &str, arguments: &str| format!("try {{ {value}.{name}({arguments}); return }} catch (e) {{ }} ");
        let all = [
            ("[1]", ""),
            ("[1]", "|x| x == 1"),
            ("[1]", "1"),
            ("[1]", "|a, x| x"),
            ("\"a\"", ""),
            ("\"a\"", "\"a\""),
            ("\"a\"", "0"),
            ("#{a: 1}", ""),
        ];
        all.map(|(value, arguments)| of(value, arguments)).concat() + &format!("throw \"{name}\"")
    }));
    assert!(questions.len() > 60, "{questions:#?}");
    let (code, _, err) = run(&mut coro(&["attach", &server.pid()]), &(questions.join("\n") + "\n"));
    assert_eq!((code, err.as_str()), (0, ""));
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
    // What is typed before the next prompt goes with that line.
    terminal.wait("a new prompt", |screen| screen.matches("act>").count() == 3);
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
