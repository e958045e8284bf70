//! Which programs can be looked into.

use std::os::unix::net::UnixListener;

use crate::server::Server;
use crate::{Scratch, coro, run};

#[test]
fn the_living_are_listed_and_the_dead_are_marked() {
    let server = Server::common();
    let directory = server.runtime_directory();
    let _ = std::fs::remove_file(directory.join("coro/17.sock"));
    drop(UnixListener::bind(directory.join("coro/17.sock")).expect("a socket that nobody serves"));
    std::fs::write(directory.join("coro/notes.txt"), "").expect("a file that is no socket");
    let (code, out, err) = run(coro(&["list"]).env("XDG_RUNTIME_DIR", directory), "");
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.lines().next().expect("a header").trim_start().starts_with("PID"), "{out}");
    let live = out.lines().find(|line| line.ends_with(&server.path())).unwrap_or_else(|| panic!("{out}"));
    let words: Vec<&str> = live.split_whitespace().collect();
    assert_eq!(words[0], server.pid());
    assert!(words[1].starts_with("cli-"), "{live}");
    assert!(words[2].ends_with('s') && words[2].starts_with(|c: char| c.is_ascii_digit()), "{live}");
    // `main`, the holder, the waiter and those that do nothing.
    assert_eq!(words[3].parse::<usize>().expect("a number"), crate::server::IDLE + 3, "{live}");
    let dead = out.lines().find(|line| line.contains("/coro/17.sock")).unwrap_or_else(|| panic!("{out}"));
    assert!(dead.trim_start().starts_with("17  -") && dead.ends_with("dead: its process is gone"), "{dead}");
    assert!(!out.contains("notes.txt"), "{out}");

    let (code, out, _) = run(coro(&["list", "--json"]).env("XDG_RUNTIME_DIR", directory), "");
    assert_eq!(code, 0);
    let rows: Vec<serde_json::Value> = out.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let live = rows.iter().find(|row| row["socket"] == server.path()).expect("the server");
    assert_eq!(live["pid"].to_string(), server.pid());
    assert!(live["problem"].is_null() && live["tasks"].as_u64() > Some(30), "{live}");
}

#[test]
fn if_there_is_none_it_is_said_where_was_looked_and_what_to_do() {
    let scratch = Scratch::new("none");
    let directory = scratch.path().to_str().expect("text");
    let (code, out, err) = run(coro(&["list"]).env("XDG_RUNTIME_DIR", directory).env("TMPDIR", directory), "");
    if !out.is_empty() {
        println!("skipped: other programs of this user are running\n{out}");
        return;
    }
    assert_eq!(code, 0);
    assert!(err.contains(&format!("{directory}/coro")) && err.contains("CORO_BACKDOOR=1"), "{err}");
}
