//! One question, one answer, one exit code.

use std::os::unix::net::UnixListener;

use crate::fake::Fake;
use crate::server::{IDLE, Server};
use crate::{Scratch, coro, run};

#[test]
fn a_process_is_found_by_its_id_and_by_its_path() {
    let server = Server::common();
    for target in [server.pid(), server.path()] {
        let (code, out, err) = run(&mut coro(&["where", &target]), "");
        assert_eq!((code, err.as_str()), (0, ""), "{out}");
        assert!(out.contains("\"db \\u{1b}[2Jwriter\" lock \"pool\""), "{out}");
        assert_eq!(out.lines().filter(|line| line.contains("\"idle ")).count(), IDLE, "{out}");
        assert!(!out.contains('\x1b') && !out.contains("{\"line\""), "{out}");

        let (code, out, _) = run(&mut coro(&["status", &target]), "");
        assert!(code == 0 && out.lines().any(|line| line.starts_with("tasks ")), "{out}");
    }
    let (_, all, _) = run(&mut coro(&["where", &server.pid()]), "");
    let line = all.lines().find(|line| line.contains("\"holder\"")).expect("the holder");
    let id = line.split([' ', '#']).nth(1).expect("its id");
    for id in [id.to_owned(), format!("#{id}")] {
        let (code, out, _) = run(&mut coro(&["where", &server.pid(), &id]), "");
        assert_eq!(code, 0);
        assert!(out.contains("\"holder\"") && out.contains("the whole stack") && out.contains("hold"), "{out}");
    }
    let (code, out, _) = run(&mut coro(&["ask", &server.pid(), "objects", "--all"]), "");
    assert!(code == 0 && out.starts_with("lock \"pool\""), "{out}");
}

#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
#[test]
fn a_process_that_serves_nothing_is_asked_by_signal() {
    let server = Server::by_signal("by-signal");
    let (code, out, err) = run(&mut coro(&["where", &server.pid()]), "");
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert_eq!(out.lines().filter(|line| line.contains("\"idle ")).count(), IDLE, "{out}");
    let (code, out, err) = run(&mut coro(&["ask", &server.pid(), "sessions"]), "");
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.contains(" by signal for "), "{out}");
}

#[test]
fn json_comes_as_it_is() {
    let server = Server::common();
    for arguments in [vec!["where", "--json"], vec!["ask", "where_all", "--json"]] {
        let mut all = vec![arguments[0].to_owned(), server.pid()];
        all.extend(arguments[1..].iter().map(|&word| word.to_owned()));
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let (code, out, err) = run(&mut coro(&all), "");
        assert_eq!((code, err.as_str()), (0, ""));
        let rows: Vec<serde_json::Value> = out.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
        assert_eq!(rows[0]["head"]["answer"], "where_all");
        let mut names = rows.iter().filter_map(|row| row["task"]["name"].as_str());
        assert!(names.any(|name| name == "db \x1b[2Jwriter"), "{out}");
        assert!(rows.iter().all(|row| row.get("done").is_none()), "{out}");
    }
}

fn rows(out: &str) -> Vec<serde_json::Value> {
    out.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

#[test]
fn one_task_and_the_status_come_as_json_too() {
    let server = Server::common();
    let (_, out, _) = run(&mut coro(&["where", &server.pid(), "--json"]), "");
    let all = rows(&out);
    let holder = all.iter().find(|row| row["task"]["name"] == "holder").expect("the holder");
    let id = holder["task"]["id"].to_string();

    let (code, out, err) = run(&mut coro(&["where", &server.pid(), &id, "--json"]), "");
    assert_eq!((code, err.as_str()), (0, ""));
    let [head, stack, task] = &rows(&out)[..] else { panic!("{out}") };
    assert_eq!((&head["head"]["answer"], &head["head"]["rows"]), (&"where".into(), &2.into()), "{head}");
    assert_eq!(head["head"]["schema_version"], all[0]["head"]["schema_version"]);
    let members =
        |row: &serde_json::Value| row["task"].as_object().expect("members").keys().cloned().collect::<Vec<_>>();
    assert_eq!((members(task), &task["task"]["stack"]), (members(holder), &0.into()));
    assert!(stack["stack"]["condensed"].as_str().is_some_and(|text| text.contains("hold|")), "{stack}");
    for json in [&[][..], &["--json"]] {
        let (code, out, err) = run(&mut coro(&[&["where", &server.pid(), "999999"], json].concat()), "");
        assert_eq!((code, out.as_str()), (1, ""));
        assert!(err.starts_with("no task #999999: it has ended"), "{err}");
    }

    let (code, out, err) = run(&mut coro(&["status", "--json", &server.pid()]), "");
    assert_eq!((code, err.as_str()), (0, ""));
    let [head, status] = &rows(&out)[..] else { panic!("{out}") };
    assert_eq!(head["head"]["answer"], "status");
    let status = &status["status"];
    assert_eq!(status["tasks"]["all"], IDLE as u64 + 3, "{status}");
    let locks = status["waits"].as_array().expect("waits").iter().find(|wait| wait["kind"] == "lock").expect("a lock");
    assert!(locks["tasks"] == 1 && locks["oldest_task"].as_u64() > Some(0), "{locks}");
    assert!(status["wedged"] == serde_json::json!([]) && status["memory"]["resident"].as_u64() > Some(0), "{status}");
}

#[test]
fn expressions_arrive_whole() {
    let server = Server::common();
    let asked = |question: &[&str]| {
        let pid = server.pid();
        run(&mut coro(&[&["ask", &pid], question].concat()), "")
    };
    let idle = format!("{IDLE}\n");
    for question in [
        &["tasks().filter(|t| t.name.starts_with(\"idle \")).len()"][..],
        &["tasks().filter(|t|", "t.name.starts_with(\"idle \"))", ".len()"],
        // Over two lines, with a comment.
        &["tasks().filter(|t| // of which\n t.class == \"idle\").len()"],
    ] {
        assert_eq!(asked(question), (0, idle.clone(), String::new()), "{question:?}");
    }
    assert_eq!(asked(&["weather"]).1, "fine\n");
    // The server would wait for the rest of it.
    let (code, out, err) = asked(&["tasks().filter(|t|"]);
    assert!(code == 1 && out.is_empty() && !err.is_empty(), "{out}{err}");
    let (code, out, err) = asked(&["set_limit(3)"]);
    assert!(code == 1 && out.is_empty() && err.contains("enable act"), "{out}{err}");
}

#[test]
fn what_is_refused_is_said_on_standard_error_with_exit_code_1() {
    let server = Server::common();
    for (question, says) in [
        (vec!["wherever"], "unknown command \"wherever\"; "),
        (vec!["where", "x\x1b[2Jy"], "\"x\\u{1b}[2Jy\""),
        (vec!["memory", "--json"], "memory has no form in JSON"),
    ] {
        let pid = server.pid();
        let arguments: Vec<&str> = ["ask", &pid].into_iter().chain(question.iter().copied()).collect();
        let (code, out, err) = run(&mut coro(&arguments), "");
        if question[1..].iter().any(|word| word.contains('\x1b')) {
            // A question is text.
            assert_eq!((code, out.as_str()), (2, ""), "{err}");
            continue;
        }
        assert_eq!((code, out.as_str()), (1, ""), "{question:?}: {err}");
        assert!(err.contains(says), "{question:?}: {err}");
    }
}

#[test]
fn who_cannot_be_reached_is_named_with_what_to_do() {
    let scratch = Scratch::new("unreached");
    let file = scratch.join("file");
    std::fs::write(&file, "").expect("a file");
    let dead = scratch.join("dead.sock");
    drop(UnixListener::bind(&dead).expect("a socket"));
    let ours = std::process::id().to_string();
    for (target, says) in [
        ("2147483647", "no process has the id 2147483647; coro list shows"),
        (&*ours, "serves no socket at its default path (looked for /"),
        (&*ours, "CORO_BACKDOOR=1"),
        #[cfg(target_os = "linux")]
        (&*ours, " by a signal either: "),
        ("/nonexistent/x.sock", "/nonexistent/x.sock: no such socket; "),
        (file.to_str().expect("text"), "is not a socket; give the one"),
        (dead.to_str().expect("text"), ": nobody serves it any more; "),
    ] {
        for command in [&["status", target][..], &["ask", target, "status"], &["where", target], &["attach", target]] {
            let (code, out, err) = run(&mut coro(command), "");
            assert_eq!((code, out.as_str()), (1, ""), "{command:?}: {err}");
            assert!(err.starts_with(&format!("coro {}: ", command[0])) && err.contains(says), "{command:?}: {err}");
            assert_eq!(err.lines().count(), 1, "{err}");
        }
    }
}

#[test]
fn a_wrong_call_is_exit_code_2_and_help_is_0() {
    for call in [
        &[][..],
        &["nonsense"],
        &["ask"],
        &["ask", "1"],
        &["ask", "1", "quit"],
        &["ask", "1", "a\nb"],
        &["where"],
        &["where", "1", "x"],
        &["where", "1", "2", "3"],
        &["status", "--nonsense", "1"],
        &["status", "1", "2"],
        &["status", "99999999999"],
        &["list", "x"],
        &["attach"],
        &["top", "--nonsense"],
        &["symbolize"],
    ] {
        let (code, out, err) = run(&mut coro(call), "");
        assert_eq!((code, out.as_str()), (2, ""), "{call:?}: {err}");
        assert!(err.contains("usage: ") || err.contains("--help"), "{call:?}: {err}");
    }
    let (code, all, _) = run(&mut coro(&["--help"]), "");
    assert!(code == 0 && all.starts_with("usage: coro COMMAND"), "{all}");
    for command in ["list", "status", "where", "ask", "attach", "top", "repl", "demo", "symbolize"] {
        assert!(all.contains(&format!("\n  {command} ")), "{command} is not in the help");
        let (code, out, _) = run(&mut coro(&[command, "--help"]), "");
        assert!(code == 0 && out.starts_with(&format!("usage: coro {command}")) && out.contains("Exit code"), "{out}");
        assert!(out.lines().all(|line| line.len() <= 120), "{out}");
        assert_eq!(run(&mut coro(&["help", command]), "").1, out);
    }
}

#[test]
fn a_server_that_turns_us_away_or_is_none_of_ours_is_told() {
    let busy = Fake::start("busy", |talk| talk.say("coro: too many sessions, the limit is 8; end one of them first\n"));
    let (code, out, err) = run(&mut coro(&["status", &busy.path()]), "");
    assert_eq!((code, out.as_str()), (1, ""));
    assert_eq!(err, "coro status: coro: too many sessions, the limit is 8; end one of them first\n");

    let other = Fake::start("other", |talk| talk.say("220 mail \x1b[2J ready\r\n500 what?\r\n"));
    let (code, out, err) = run(&mut coro(&["status", &other.path()]), "");
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("no server of coro's") && err.contains("mail \\u{1b}[2J ready"), "{err}");

    // One that has begun to talk to a person before it heard what is wanted.
    let early = Fake::start("early", |talk| {
        talk.say(&format!("{}tasks      3: 3 parked\nfake[1] read> ", crate::fake::BANNER));
        talk.expect("#lines");
        talk.say("{\"done\":\"#lines\"}\n");
        talk.expect("status");
        talk.say("{\"line\":\"all is well\"}\n{\"done\":\"status\"}\n");
    });
    assert_eq!(run(&mut coro(&["status", &early.path()]), ""), (0, "all is well\n".into(), String::new()));

    let mute = Fake::start("mute", |_| {});
    let (code, _, err) = run(&mut coro(&["status", &mute.path()]), "");
    assert!(code == 1 && err.contains("closed without a word"), "{err}");
}

#[test]
fn nothing_that_a_server_says_steers_the_terminal() {
    let hostile = Fake::start("hostile", |talk| {
        talk.greet();
        talk.expect("status");
        talk.say("{\"line\":\"a \\u001b[31mred\\u001b[0m \\u001b[2J\\u009b\"}\n{\"error\":\"b \\u001b[31m\\u0007\"}\n");
        talk.say("raw \x1b]0;x\x07\n{\"task\":\"\x1b[2J\"}\n{\"done\":\"status\"}\n");
    });
    let (code, out, err) = run(&mut coro(&["status", &hostile.path()]), "");
    assert_eq!(code, 1);
    assert_eq!(out, "a \x1b[31mred\x1b[0m \\u{1b}[2J\\u{9b}\nraw \\u{1b}]0;x\\u{7}\n{\"task\":\"\\u{1b}[2J\"}\n");
    assert_eq!(err, "b \\u{7}\n");
}

#[test]
fn a_reader_who_leaves_is_no_error() {
    let server = Server::common();
    let mut child = coro(&["where", &server.pid()]).spawn().expect("the client");
    drop(child.stdout.take());
    assert_eq!(child.wait().expect("its end").code(), Some(0));
}
