//! What a console has beside questions and answers: rights, JSON, keys, telnet, the list of sessions.

use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::super::stream::Listener;
use super::*;
use crate::report::{self, Report};

/// The report handler is the process's; one test at a time has it.
pub(super) static HANDLER: Mutex<()> = Mutex::new(());

/// Collects what is reported of sessions while `work` runs, and until it is `enough`: the handler runs on a thread of its own.
fn reported(work: impl FnOnce(), enough: impl Fn(&[String]) -> bool) -> Vec<String> {
    let _turn = HANDLER.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let into = seen.clone();
    let before = report::set_report_handler(Some(Arc::new(move |r: &Report| match r {
        Report::Audit(text) | Report::Attach(text) => into.lock().expect("seen").push(text.clone()),
        _ => {}
    })));
    work();
    let end = Instant::now() + PATIENCE;
    while !enough(&seen.lock().expect("seen")) && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(5));
    }
    report::set_report_handler(before);
    std::mem::take(&mut *seen.lock().expect("seen"))
}

fn serve_at(directory: &Directory, change: impl FnOnce(&mut Asked)) -> Server {
    let mut asked = Asked {
        path: directory.join("s.sock"),
        commands: &SERVED,
        limits: Limits { prompt_after: Duration::from_millis(60), ..Limits::STANDARD },
        ceiling: None,
        welcome: None,
        tcp: None,
    };
    change(&mut asked);
    serve_asked(asked).expect("served")
}

#[test]
fn what_changes_something_needs_its_tier_and_is_recorded_first() {
    let directory = Directory::new();
    let server = serve_at(&directory, |_| {});
    let mut answer = String::new();
    let told = reported(
        || answer = Client::connect(server.path()).ask("set\nenable act\nset\nenable read\nset\n"),
        |told| told.iter().any(|t| t.ends_with(": set")) && told.iter().any(|t| t.ends_with(" ended")),
    );
    let needs = "set needs the tier act: write first: enable act\n";
    assert_eq!(answer, format!("{BANNER}{needs}this session may now act\nline 7\nthis session may now read\n{needs}"));
    let of_ours: Vec<&String> = told.iter().filter(|t| t.contains("enable") || t.contains(": set")).collect();
    assert_eq!(of_ours.len(), 2, "{told:?}");
    assert!(of_ours[0].ends_with(": enable act") && of_ours[0].contains(" (unix uid "), "{told:?}");
    assert!(of_ours[1].ends_with(": set"), "{told:?}");
    assert!(told.iter().any(|t| t.ends_with(" began")) && told.iter().any(|t| t.ends_with(" ended")), "{told:?}");
    server.close();

    let server = serve_at(&directory, |asked| asked.ceiling = Some(Tier::Read));
    let answer = Client::connect(server.path()).ask("enable act\nset\n");
    let refused =
        "act is not to be had here: read is the highest\nset needs the tier act, and here read is the highest\n";
    assert_eq!(answer, format!("{BANNER}{refused}"));
    server.close();
}

#[test]
fn json_gives_one_value_a_line_and_an_end() {
    let served = Served::new(Limits::STANDARD);
    let answer = served.client().ask("#json\nwhere 5\nnonsense \"\nhelp quit\n#text\nwhere 6\n#lines\nwhere 7\n");
    let lines = [
        BANNER.trim_end(),
        r##"{"done":"#json"}"##,
        r#"{"line":"line 5"}"#,
        r#"{"done":"where"}"#,
        r#"{"error":"unknown command \"nonsense\"; the nearest is where; help lists all"}"#,
        r#"{"done":"input"}"#,
        r#"{"line":"quit   ends the session (also: exit)"}"#,
        r#"{"done":"help"}"#,
        "line 6",
        r##"{"done":"#lines"}"##,
        r#"{"line":"line 7"}"#,
        r#"{"done":"where"}"#,
    ];
    let said: Vec<&str> =
        answer.lines().map(|l| if l.starts_with(r#"{"line":"quit"#) { lines[6] } else { l }).collect();
    assert_eq!(said, lines, "{answer}");
}

#[test]
fn an_answer_that_fails_has_its_end_in_json_too() {
    let served = Served::new(Limits::STANDARD);
    let mut client = served.client();
    client.expect(BANNER);
    client.send(&format!("#json\nwhere {ENDLESS}\n"));
    client.expect("{\"done\":\"#json\"}\n{\"line\":\"line 0\"}\n");
    client.send(&format!("\x03{}\nwhere 1\n", "x".repeat(5000)));
    let (mut seen, mut buffer) = (String::new(), vec![0; 64 * 1024]);
    while !seen.ends_with("{\"line\":\"line 1\"}\n{\"done\":\"where\"}\n") {
        let length = client.0.read(&mut buffer).expect("more");
        assert!(length > 0, "the session ended: {seen:?}");
        seen = seen.split_off(seen.len().saturating_sub(400)) + std::str::from_utf8(&buffer[..length]).expect("text");
    }
    let interrupted = "{\"error\":\"where: interrupted\"}\n{\"done\":\"where\"}\n{\"error\":\"input: line too long, the \
                       limit is 4096 bytes\"}\n{\"done\":\"input\"}\n{\"line\":";
    assert!(seen.contains(interrupted), "{seen}");
}

#[test]
fn an_interrupt_ends_the_answer_and_what_was_asked_after_it() {
    let served = Served::new(Limits { prompt_after: Duration::from_millis(60), ..Limits::STANDARD });
    let dropped = DROPPED.load(Ordering::SeqCst);
    let mut client = served.client();
    client.send(&format!("where {ENDLESS}\nwhere 1\n"));
    client.expect(&format!("{BANNER}line 0\nline 1\n"));
    client.send("\x03");
    let (mut seen, mut buffer) = (String::new(), vec![0; 64 * 1024]);
    while !seen.ends_with("where: interrupted\nfake[1] read> ") {
        let length = client.0.read(&mut buffer).expect("more");
        assert!(length > 0, "the session ended: {seen:?}");
        seen = seen.split_off(seen.len().saturating_sub(100)) + std::str::from_utf8(&buffer[..length]).expect("text");
    }
    assert!(DROPPED.load(Ordering::SeqCst) > dropped);
    // Of a line that was begun nothing is left, nor of a command.
    client.send("nonsense\x03where 2\n");
    client.expect("\nline 2\nfake[1] read> ");
    client.send("where \\\n");
    client.expect("... ");
    client.send("\x03");
    client.expect("\nfake[1] read> ");
    // Ctrl-D leaves.
    client.send("where 3\n\x04");
    assert_eq!(client.rest().0, "line 3\n");
}

#[test]
fn a_command_goes_on_behind_a_backslash() {
    let served = Served::new(Limits::STANDARD);
    assert_eq!(served.client().ask("where \\\n4\nwhere \\\r\n5\r\n"), format!("{BANNER}line 4\nline 5\n"));
    // Also if its last line never comes.
    assert_eq!(served.client().ask("where 6\\\n"), format!("{BANNER}line 6\n"));
    let long = "x \\\n".repeat(20_000);
    let answer = served.client().ask(&format!("{long}\nwhere 7\n"));
    assert!(answer.contains("input: command too long, the limit is 16384 bytes\n"), "{answer}");
    assert!(answer.ends_with("line 7\n"), "{answer}");
}

#[test]
fn sessions_are_listed_with_what_they_asked_last() {
    let served = Served::new(Limits::STANDARD);
    let mut client = served.client();
    client.send("where 123456\n");
    client.expect(&format!("{BANNER}line 123456\n"));
    let list = || {
        let mut text = Vec::new();
        while crate::commands::sessions::sessions().more(&mut text) {}
        String::from_utf8(text).expect("text")
    };
    let listed = list();
    let line = listed.lines().find(|l| l.ends_with(": where 123456")).expect(&listed);
    assert!(line.contains(&format!(" read unix uid {} pid {} for ", unixsock_uid(), std::process::id())), "{line}");
    assert!(line.contains("1 command, the last "), "{line}");
    drop(client);
    let end = Instant::now() + PATIENCE;
    while list().contains("where 123456") {
        assert!(Instant::now() < end, "still listed");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn unixsock_uid() -> u32 {
    crate::sys::unixsock::effective_uid()
}

#[cfg(target_os = "linux")]
#[test]
fn telnet_is_answered_on_loopback_and_reads_only() {
    let directory = Directory::new();
    let server = serve_at(&directory, |asked| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("non-blocking");
        asked.tcp = Some(Listener::Tcp(listener));
    });
    let mut client = TcpStream::connect(server.tcp_addr().expect("an address")).expect("connected");
    client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    // Do echo, will window size, a command, an interrupt with its mark.
    client.write_all(b"\xff\xfd\x01\xff\xfb\x1fwhere 4\r\nenable act\r\nquit\r\n").expect("sent");
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).expect("an answer");
    let position = |what: &[u8]| answer.windows(what.len()).position(|w| w == what);
    assert!(position(b"\xff\xfc\x01").is_some() && position(b"\xff\xfe\x1f").is_some(), "{answer:?}");
    let text: String =
        String::from_utf8_lossy(&answer).chars().filter(|c| c.is_ascii() && !c.is_control() || *c == '\n').collect();
    assert!(text.contains("line 4\n"), "{text}");
    assert!(text.contains("act is not to be had here: read is the highest\n"), "{text}");
    server.close();
}

#[test]
fn the_welcome_of_the_program_comes_before_the_first_prompt() {
    let directory = Directory::new();
    let server = serve_at(&directory, |asked| asked.welcome = Some("app, the blue one\n\x1b[2Jask me".into()));
    let mut person = Client::connect(server.path());
    person.expect(&format!("{BANNER}app, the blue one\n\\u{{1b}}[2Jask me\nfake[1] read> "));
    assert_eq!(Client::connect(server.path()).ask("where 9\n"), format!("{BANNER}line 9\n"));
    server.close();
}
