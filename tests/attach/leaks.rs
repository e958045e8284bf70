//! What must not come out of a console: bytes of the program's own, and bytes that a terminal obeys. Every command that
//! `help` lists is asked, in every form, so that a new one is asked as well.

use super::*;

/// In the environment, on stacks, in closures, in messages and in sockets, and nowhere else.
const SECRET: &str = "hunter2-5e1f-correct-horse";

/// What a terminal would obey: clear, title, a line of its own, a device string, C1, backwards, nothing to be seen.
const HOSTILE: &str =
    "x\u{1b}[2J\u{1b}]0;owned\u{7}\r\nfake #1 parked\u{1b}P$q\u{1b}\\\u{9b}31m\u{202e}kcab\u{200b}\u{7f}\t\0\"}{\\";

fn bound(place: &str) -> coro::net::unix::UnixListener {
    coro::net::unix::UnixListener::bind(place).expect("a socket")
}

#[inline(never)]
fn holds_on_stack(secret: &str, wait: impl FnOnce()) {
    let mut copy = [0u8; 64];
    copy[..secret.len()].copy_from_slice(secret.as_bytes());
    let copy = std::hint::black_box(copy);
    wait();
    std::hint::black_box(copy);
}

/// A program whose every wait has the secret somewhere.
pub(super) fn secrets() {
    let secret = std::env::var("APP_TOKEN").expect("the secret");
    coro::console::install_signal_handler().expect("installed");
    let runtime = util::runtime(1);
    runtime.block_on(|| {
        let lock = Arc::new(coro::sync::Mutex::new(secret.clone()).named("vault"));
        let guarded = lock.clone();
        coro::spawn_named("holder", move || {
            let held = guarded.lock().unwrap();
            holds_on_stack(&held, || coro::sleep(LONG * 10));
        });
        coro::yield_slice();
        let (waits, copy) = (lock.clone(), secret.clone());
        coro::spawn_named("waiter", move || holds_on_stack(&copy, || drop(waits.lock())));
        let (sender, receiver) = coro::sync::mpsc::channel_named::<String>("letters");
        for _ in 0..3 {
            sender.send(secret.clone()).unwrap();
        }
        coro::spawn_named("keeper", move || {
            let both = (sender, receiver);
            coro::park();
            drop(both);
        });
        let (mut ours, theirs) = coro::net::unix::UnixStream::pair().expect("a pair");
        // Lies in the kernel, unread; and a reader that holds the buffer for what never comes.
        std::io::Write::write_all(&mut ours, secret.as_bytes()).expect("sent");
        let (other, mut reads) = coro::net::unix::UnixStream::pair().expect("a pair");
        let copy = secret.clone();
        coro::spawn_named("reader", move || {
            let mut buffer = copy.into_bytes();
            let _ = reads.read(&mut buffer);
            drop((ours, theirs, other));
        });
        let result = secret.clone();
        std::mem::forget(coro::spawn_named("done", move || result));
        let copy = secret.clone();
        for _ in 0..20 {
            coro::yield_slice();
        }
        coro::spawn_named("spinner", move || holds_on_stack(&copy, culprit_spin));
    });
    super::ready();
    super::obey(|_| {});
}

/// A program in which everything that has a name has a hostile one.
pub(super) fn names() {
    // What std would say of them is the program's own affair.
    std::panic::set_hook(Box::new(|_| {}));
    coro::set_panic_notifier(Some(Arc::new(|_| {})));
    coro::console::install_signal_handler().expect("installed");
    let place = std::env::var("XDG_RUNTIME_DIR").expect("a directory");
    let runtime = util::runtime(2);
    runtime.block_on(move || {
        coro::set_label("odd\u{1b}[2Jkey", HOSTILE);
        let leaked: &'static str = Box::leak(HOSTILE.to_owned().into_boxed_str());
        let lock = Arc::new(coro::sync::Mutex::new(()).named(leaked));
        for _ in 0..2 {
            let lock = lock.clone();
            let builder = coro::Builder::new().name(HOSTILE).class(leaked);
            let task = builder.spawn(move || {
                coro::set_label("odd\u{1b}[2Jkey", HOSTILE);
                let _held = lock.lock();
                coro::sleep(LONG * 10);
            });
            std::mem::forget(task.expect("spawned"));
        }
        let (sender, receiver) = coro::sync::mpsc::channel_named::<()>(leaked);
        std::mem::forget(sender);
        coro::spawn_named(HOSTILE, move || receiver.recv());
        let _ = coro::spawn_named(HOSTILE, || panic!("{HOSTILE}")).join();
        let _ = std::panic::catch_unwind(|| std::panic::panic_any(HOSTILE.to_owned()));
        let (a, b) =
            (Arc::new(coro::sync::Mutex::new(()).named(leaked)), Arc::new(coro::sync::Mutex::new(()).named(leaked)));
        for (first, second) in [(a.clone(), b.clone()), (b, a)] {
            coro::spawn_named(HOSTILE, move || {
                let _first = first.lock();
                coro::sleep(Duration::from_millis(20));
                let _second = second.lock();
            });
        }
        let path = format!("{place}/s\u{1b}[2J\u{9b}\u{202e}\n.sock");
        let listener = bound(&path);
        let client = coro::net::unix::UnixStream::connect(&path).expect("connected");
        coro::spawn_named(HOSTILE, move || {
            let (mut served, _) = listener.accept().expect("accepted");
            let _ = served.read(&mut [0; 8]);
            drop((client, listener));
        });
        coro::sleep(Duration::from_millis(60));
    });
    super::ready();
    super::obey(|_| {});
}

/// Every command, bare and with what it or another may take behind it. Sessions begin with the right to read, so that
/// nothing here changes anything.
fn everything(target: &Target) -> Vec<String> {
    let help = target.session().ask("help\n");
    let commands: Vec<&str> = help.lines().filter_map(|l| l.split_whitespace().next()).collect();
    // They watch for a while, and would do so in every form.
    let watches = |command: &str| help.lines().any(|l| l.split_whitespace().take(2).eq([command, "[SECONDS]"]));
    assert!(commands.len() > 15 && commands.contains(&"where_all"), "{help}");
    let tasks = target.session().ask("where_all\n");
    let id = tasks.lines().find_map(|l| l.strip_prefix('#')?.split_whitespace().next()).expect(&tasks).to_owned();
    let ends = ["quit", "#json", "#text"];
    let mut asked = Vec::new();
    for command in commands.into_iter().filter(|command| !ends.contains(command)) {
        if watches(command) {
            asked.push(format!("{command} 1\n"));
            continue;
        }
        for words in ["", " --all", " --suspected", " --json", " --all --json", " --colour", " 1", &format!(" {id}")] {
            asked.push(format!("{command}{words}\n"));
        }
    }
    for (id, _) in tasks.lines().filter_map(|l| l.strip_prefix('#')?.split_once(' ')) {
        asked.push(format!("where {id}\n"));
    }
    asked.extend(expressions(target, &id));
    asked
}

/// Each function that a session may call from the beginning, its values whole and in strings.
fn expressions(target: &Target, id: &str) -> Vec<String> {
    if !cfg!(feature = "script") {
        return Vec::new();
    }
    let functions = target.session().ask("functions\n");
    let mut asked = Vec::new();
    for line in functions.lines() {
        let Some((name, rest)) = line.split_once('(') else { continue };
        let Some((parameters, rest)) = rest.split_once(')') else { continue };
        let Some(tier) = rest.split_whitespace().next() else { continue };
        assert_eq!(tier, "read", "{line}");
        let call = match parameters {
            "" => format!("{name}()"),
            "id" => format!("{name}({id})"),
            "command" => format!("{name}(\"where_all\")"),
            other => panic!("what is {other}? {line}"),
        };
        asked.push(format!("{call}\n"));
        asked.push(format!("`x${{{call}}}` + _\n"));
        asked.push(format!(
            "let all = {call}; if type_of(all) == \"array\" {{ all.map(|it| `${{it}}`) }} else {{ print(all) }}\n"
        ));
    }
    assert!(asked.len() > 30, "{functions}");
    asked
}

#[test]
fn no_answer_has_bytes_of_the_environment_of_stacks_or_of_messages() {
    let target = Target::start_as("secrets", |command| {
        command.env("APP_TOKEN", SECRET);
    });
    let asked = everything(&target).concat();
    let answer = target.session().ask(&asked) + &target.session().ask(&format!("#json\n{asked}")) + &target.said();
    // The tasks that have it are there.
    assert_eq!(answer.contains("\"value\":"), cfg!(feature = "script"));
    for name in ["holder", "waiter", "keeper", "reader", "spinner", "vault", "letters"] {
        assert!(answer.contains(name), "{name}\n{answer}");
    }
    let lower = answer.to_lowercase();
    let part = &SECRET[SECRET.len() - 13..];
    let hex: String = part.bytes().map(|b| format!("{b:02x}")).collect();
    let list: Vec<String> = part.bytes().map(|b| b.to_string()).collect();
    let reversed: String =
        hex.as_bytes().chunks(2).take(8).rev().map(|b| std::str::from_utf8(b).expect("hex")).collect();
    for form in [part.to_owned(), hex, list.join(", "), list.join(","), reversed] {
        let found = lower.find(&form).map(|at| lower[..at].rsplit('\n').next().unwrap_or_default().to_owned());
        assert_eq!(found, None, "{form} stands behind this");
    }
    assert!(!answer.contains("APP_TOKEN"), "a variable's name");
}

/// Whether a terminal does anything else with it than show it.
fn is_obeyed(c: char) -> bool {
    (c.is_control() && c != '\n')
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[test]
fn no_name_peer_or_panic_text_comes_out_in_a_form_that_a_terminal_obeys() {
    let target = Target::start("names");
    for line in everything(&target) {
        let coloured = line.contains("--colour");
        let text = target_answer(&target, &line);
        // Colours are ours: what is left without them must be plain.
        let plain = if coloured { without_colours(&text) } else { text.clone() };
        assert!(!plain.contains(is_obeyed), "{line:?}: {plain:?}");
        // A text of an expression's own making has the lines that it has.
        assert!(!plain.contains("\nfake #1") || line.contains('`'), "{line:?}: {plain}");
        assert!(text.is_empty() || text.ends_with('\n'), "{line:?}: {text:?}");
    }
    let asked: String = everything(&target).into_iter().filter(|line| !line.contains("--colour")).collect();
    let json = target_answer(&target, &format!("#json\n{asked}"));
    assert!(json.lines().count() > 100);
    for line in json.lines() {
        assert!(line.starts_with('{') && line.ends_with('}') && is_json(line), "{line:?}");
        assert!(!line.contains(is_obeyed), "{line:?}");
    }
    // What is typed comes back escaped as well, also from the list of sessions.
    let typed = "where \u{1b}[2J\u{202e}ere\nwh\u{1b}[2J\u{202e}ere 1\nlabel \u{9b}31m\nsessions\n";
    let answer = target_answer(&target, typed);
    assert!(!answer.contains(is_obeyed) && answer.contains("\\u{1b}[2J"), "{answer:?}");
    // In front of the time stands a tab.
    assert!(!target.said().replace('\t', " ").contains(is_obeyed), "{:?}", target.said());
}

/// One session for each would take longer than one for all; the limits on a session are far away.
fn target_answer(target: &Target, line: &str) -> String {
    thread_local! {
        static OPEN: std::cell::RefCell<Option<(i32, Session)>> = const { std::cell::RefCell::new(None) };
    }
    let marked = line.contains("#json");
    if marked || line.matches('\n').count() > 1 {
        return target.session().ask(line);
    }
    OPEN.with_borrow_mut(|open| {
        let (_, session) = match open {
            Some(open) if open.0 == target.pid() => open,
            _ => open.insert((target.pid(), target.session())),
        };
        // An unknown word is answered with one line, which ends the answer.
        session.0.get_mut().write_all(format!("{line}zzzzzz\n").as_bytes()).expect("sent");
        let mut answer = String::new();
        loop {
            let next = session.line();
            assert!(!next.is_empty(), "the session ended: {line:?}");
            // A prompt may stand before it.
            if next.contains("unknown command \"zzzzzz\"") {
                return answer;
            }
            answer += &next;
        }
    })
}

fn without_colours(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("\u{1b}[") {
        out += &rest[..at];
        let from = &rest[at + 2..];
        let end = from.find(|c: char| !c.is_ascii_digit() && c != ';').unwrap_or(from.len());
        if from[end..].starts_with('m') {
            rest = &from[end + 1..];
        } else {
            // No colour: left for the check.
            out.push('\u{1b}');
            rest = from;
        }
    }
    out + rest
}

/// Whether it is one JSON value, no more: strings and nesting are taken apart, other words are not.
fn is_json(text: &str) -> bool {
    let (mut depth, mut chars) = (0, text.chars());
    while let Some(c) = chars.next() {
        match c {
            '"' => loop {
                match chars.next() {
                    Some('"') => break,
                    Some('\\') => match chars.next() {
                        Some('u') => {
                            if !chars.by_ref().take(4).all(|c| c.is_ascii_hexdigit()) {
                                return false;
                            }
                        }
                        Some('"' | '\\' | '/' | 'b' | 'f' | 'n' | 'r' | 't') => {}
                        _ => return false,
                    },
                    Some(c) if !c.is_control() => {}
                    _ => return false,
                }
            },
            '{' | '[' => depth += 1,
            '}' | ']' => {
                depth -= 1;
                if depth == 0 {
                    return chars.next().is_none();
                }
            }
            _ => {}
        }
    }
    false
}
