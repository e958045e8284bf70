//! What a client sees.

use std::io::{BufRead, BufReader};

use super::process::{Peer, child_command};
use super::*;

#[test]
fn an_answer_is_flushed_whole_after_the_clients_end_of_input() {
    let served = Served::new(Limits::STANDARD);
    for text in ["where_all\n", "where_all", "coro::where_all()\r\n"] {
        let mut client = served.client();
        client.send(text);
        client.end();
        let (answer, silence) = client.rest();
        assert!(answer == format!("{BANNER}{}", all_lines()), "{text:?}: {} bytes", answer.len());
        // The patience of socat without -t; the aim is half of it.
        assert!(silence < Duration::from_millis(500), "silent for {silence:?}");
    }
}

#[test]
fn queued_commands_answer_in_order_and_without_prompts() {
    let served = Served::new(Limits::STANDARD);
    let answer = served.client().ask("where 1\r\n\n\r\nwhere 2\nwhere_all\nwhere #3\nnonsens\nwhere 4");
    let (all, unknown) = (all_lines(), "unknown command \"nonsens\"; the nearest is ");
    let (head, tail) = answer.split_once(unknown).expect("the unknown word");
    assert!(head == format!("{BANNER}line 1\nline 2\n{all}line 3\n"), "{}", &head[..60]);
    assert!(tail.ends_with("\nline 4\n"), "{tail}");
}

#[test]
fn several_clients_are_answered_at_once() {
    let served = Served::new(Limits::STANDARD);
    let mut clients: Vec<Client> = (0..4).map(|_| served.client()).collect();
    for client in &mut clients {
        client.send("where_all\n");
        client.end();
    }
    let expected = format!("{BANNER}{}", all_lines());
    let threads: Vec<_> =
        clients.into_iter().map(|mut it| std::thread::spawn(move || (it.rest(), Instant::now()))).collect();
    let ends: Vec<Instant> = threads
        .into_iter()
        .map(|thread| {
            let ((answer, _), end) = thread.join().expect("a client");
            assert!(answer == expected, "{} bytes", answer.len());
            end
        })
        .collect();
    // One after the other, the first would have ended three times 0.5 s before the last.
    let spread = *ends.iter().max().expect("ends") - *ends.iter().min().expect("ends");
    assert!(spread < Duration::from_millis(500), "{spread:?}");
}

/// The first second is at full speed where there is a CPU; what follows takes two thirds of one, and others are answered meanwhile. In a
/// process of its own: on a busy machine it takes what all consoles of a process may take.
#[test]
fn an_endless_answer_leaves_a_part_of_its_cpu() {
    let directory = Directory::new();
    let path = directory.join("s.sock");
    let peer = Peer::start(child_command("serve", &path));
    let mut client = Client::connect(&path);
    client.send(&format!("where {COMPUTES}\n"));
    let mut lines = BufReader::new(client.0.try_clone().expect("cloned")).lines();
    assert_eq!(lines.next().expect("a banner").expect("read"), BANNER.trim_end());
    let figures = lines.map(|line| {
        let line = line.expect("a line");
        let (lasted, cpu) = line.split_once(' ').expect("two figures");
        [lasted, cpu].map(|n| Duration::from_micros(n.parse().expect("a number")))
    });
    let mut seen = figures.skip_while(|[lasted, _]| *lasted < Duration::from_millis(1500));
    let [began, cpu_then] = seen.next().expect("a line");
    assert_eq!(Client::connect(&path).ask("where 5\n"), format!("{BANNER}line 5\n"));
    let [lasted, cpu] = seen.find(|[lasted, _]| *lasted >= began + Duration::from_secs(2)).expect("it is endless");
    let share = (cpu - cpu_then).as_secs_f64() / (lasted - began).as_secs_f64();
    assert!(share > 0.0 && share < 0.7, "{share}");
    peer.finish();
}

#[test]
fn one_client_too_many_is_told_and_a_free_place_is_given_again() {
    let served = Served::new(Limits::STANDARD);
    let mut clients: Vec<Client> = (0..8).map(|_| served.client()).collect();
    clients.iter_mut().for_each(|client| client.expect(BANNER));
    // Also when it does not notice before it sends.
    let mut ninth = served.client();
    ninth.send("where 1\n");
    let (answer, _) = ninth.rest();
    assert_eq!(answer, "coro: too many sessions, the limit is 8; end one of them first\n");
    let mut first = clients.remove(0);
    first.send("quit\n");
    assert_eq!(first.rest().0.trim_start_matches("fake[1] read> "), "");
    served.client().expect(BANNER);
    clients[0].send("where 5\n");
}

#[test]
fn a_line_too_long_is_told_and_the_next_one_answered() {
    let served = Served::new(Limits::STANDARD);
    let answer = served.client().ask(&format!("where 1\n{}\nwhere 2\n", "x".repeat(100_000)));
    assert_eq!(answer, format!("{BANNER}line 1\ninput: line too long, the limit is 4096 bytes\nline 2\n"));
}

#[test]
fn dead_readers_hold_up_nobody_and_are_dropped() {
    let limits = Limits { stalled: Duration::from_millis(400), sessions: 3, ..Limits::STANDARD };
    let served = Served::new(limits);
    let mut dead: Vec<Client> = (0..2).map(|_| served.client()).collect();
    for client in &mut dead {
        client.send(&format!("where {ENDLESS}\n"));
        client.expect(BANNER);
    }
    let begin = Instant::now();
    assert_eq!(served.client().ask("where 7\n"), format!("{BANNER}line 7\n"));
    assert!(begin.elapsed() < Duration::from_millis(300), "{:?}", begin.elapsed());
    // What was sent before the deadline is still there; then the connection has ended.
    for client in &mut dead {
        client.0.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        while served_places(&served) < 3 {
            std::thread::yield_now();
        }
        let (text, _) = client.rest();
        assert!(text.len() < 4 << 20, "{} bytes", text.len());
    }
}

/// How many clients get in at once.
fn served_places(served: &Served) -> usize {
    let mut clients: Vec<Client> = Vec::new();
    loop {
        let mut client = served.client();
        let mut first = [0; 5];
        client.0.read_exact(&mut first).expect("a first line");
        if first == *b"coro:" {
            // Their ends are noticed in order, before the next connection.
            for client in &mut clients {
                client.send("quit\n");
                client.rest();
            }
            return clients.len();
        }
        clients.push(client);
    }
}

#[test]
fn a_client_that_leaves_takes_its_answer_with_it() {
    let served = Served::new(Limits::STANDARD);
    let before = DROPPED.load(Ordering::SeqCst);
    let mut client = served.client();
    client.send(&format!("where {ENDLESS}\n"));
    client.expect(BANNER);
    drop(client);
    let begin = Instant::now();
    while DROPPED.load(Ordering::SeqCst) == before {
        assert!(begin.elapsed() < PATIENCE, "the answer goes on");
        std::thread::yield_now();
    }
}

#[test]
fn a_panic_ends_one_command_only() {
    let served = Served::new(Limits::STANDARD);
    let answer = served.client().ask(&format!("where {PANICS_AT_ONCE}\nwhere {PANICS_LATER}\nwhere 1\n"));
    let expected = format!(
        "{BANNER}where {PANICS_AT_ONCE}: this command panicked, the session goes on: no answer for {PANICS_AT_ONCE}\n\
         half a li\nwhere: this command panicked, the session goes on: more failed: \\u{{1b}}[2J\nline 1\n"
    );
    assert_eq!(answer, expected);
    assert_eq!(served.client().ask("where 2"), format!("{BANNER}line 2\n"));
}

#[test]
fn the_welcome_is_for_those_who_get_a_prompt_and_comes_once() {
    static WELCOMING: Commands =
        Commands { welcome: || Box::new(Count { next: 0, end: 3, chunk: 1, step: Duration::from_millis(1) }), ..FAKE };
    let directory = Directory::new();
    let limits = Limits { prompt_after: Duration::from_millis(60), ..Limits::STANDARD };
    let server = serve_with(directory.join("s.sock"), &WELCOMING, limits).expect("served");
    let mut person = Client::connect(server.path());
    person.expect(&format!("{BANNER}line 0\nline 1\nline 2\nfake[1] read> "));
    person.send("where 7\n");
    person.expect("line 7\nfake[1] read> ");
    // A program that asks at once gets what it asked for; a prompt later, but never a welcome.
    let mut program = Client::connect(server.path());
    program.send("where 8\n");
    program.expect(&format!("{BANNER}line 8\nfake[1] read> "));
    assert_eq!(Client::connect(server.path()).ask("where 9\n"), format!("{BANNER}line 9\n"));
    server.close();
}

#[test]
fn the_prompt_is_for_those_who_wait() {
    let served = Served::new(Limits { prompt_after: Duration::from_millis(60), ..Limits::STANDARD });
    let mut client = served.client();
    let begin = Instant::now();
    client.expect(&format!("{BANNER}fake[1] read> "));
    assert!(begin.elapsed() >= Duration::from_millis(60));
    client.expect_silence(Duration::from_millis(200));
    for (input, output) in [
        ("\n", "fake[1] read> "),
        ("where 1\n", "line 1\nfake[1] read> "),
        ("where 2\r\nwhere 3\r\n", "line 2\nline 3\nfake[1] read> "),
    ] {
        client.send(input);
        client.expect(output);
    }
    // The beginning of a line holds the prompt back.
    client.send("where 4\nwh");
    client.expect("line 4\n");
    client.expect_silence(Duration::from_millis(200));
    client.send("ere 5\n");
    client.expect("line 5\nfake[1] read> ");
    client.end();
    assert_eq!(client.rest().0, "");
}

#[test]
fn quit_ends_the_session_after_what_was_asked_before() {
    let served = Served::new(Limits::STANDARD);
    for word in ["quit", "exit"] {
        let mut client = served.client();
        client.send(&format!("where 1\n{word}\nwhere 2\n"));
        assert_eq!(client.rest().0, format!("{BANNER}line 1\n"));
    }
}

#[test]
fn an_idle_session_ends_also_for_a_slow_sender() {
    let served = Served::new(Limits { idle: Duration::from_millis(300), ..Limits::STANDARD });
    let mut client = served.client();
    assert_eq!(client.rest().0, format!("{BANNER}fake[1] read> \nclosed: no command for 1 minutes\n"));
    let mut slow = served.client();
    let begin = Instant::now();
    while slow.0.write_all(b"x").is_ok() {
        assert!(begin.elapsed() < PATIENCE, "a slow sender stays");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_first_byte_comes_soon_while_others_compute() {
    let served = Served::new(Limits::STANDARD);
    let mut others: Vec<Client> = (0..4).map(|_| served.client()).collect();
    for other in &mut others {
        other.send(&format!("where {SLOW_STEPS}\n"));
        other.end();
        other.expect(BANNER);
    }
    let begin = Instant::now();
    let mut client = served.client();
    client.expect(BANNER);
    let first = begin.elapsed();
    assert_eq!(client.ask("where 1\n"), "line 1\n");
    for mut other in others {
        assert_eq!(other.rest().0.lines().count(), 20);
    }
    // A step is 50 ms; the aim is 100 ms, the rest is for a busy machine.
    assert!(first < Duration::from_millis(200), "{first:?}");
}

#[test]
fn leaving_in_the_middle_of_a_line_runs_nothing_that_was_not_ended() {
    let served = Served::new(Limits::STANDARD);
    // Ctrl-D, and telnet's end of file: the whole lines are answered, the begun one is not.
    for end in ["\x04", "\u{ff}\u{ec}"] {
        let end: Vec<u8> = end.chars().map(|c| c as u8).collect();
        for begun in ["where 2", "where \\\n2", "where 2 \\\n"] {
            let mut client = served.client();
            client.0.write_all(&[b"where 1\n", begun.as_bytes(), &end].concat()).expect("sent");
            let (answer, _) = client.rest();
            assert_eq!(answer, format!("{BANNER}line 1\n"), "{begun:?} {end:?}");
        }
    }
    // A connection that breaks is no Ctrl-D: questions may come without an end, what could change something may not.
    assert_eq!(served.client().ask("where 2"), format!("{BANNER}line 2\n"));
    for begun in ["set", "set \\\n", "where 2"] {
        let answer = served.client().ask(&format!("enable act\n{begun}"));
        let why = "input: the last line has no end and was not run; a session above read has to end its lines";
        assert_eq!(answer, format!("{BANNER}this session may now act\n{why}\n"), "{begun:?}");
    }
}

#[test]
fn sessions_that_have_ended_and_stay_connected_make_room() {
    let limits = Limits { linger: PATIENCE, ..Limits::STANDARD };
    let served = Served::new(limits);
    let mut ended: Vec<Client> = Vec::new();
    for _ in 0..100 {
        let mut client = served.client();
        client.expect(BANNER);
        client.send("quit\n");
        // The server's side ends; its own stays open.
        client.rest();
        ended.push(client);
    }
    // Writing fails where the server has let go altogether.
    let open = ended.iter_mut().filter_map(|client| client.0.write(b"x").ok()).count();
    assert!(open <= 2 * limits.sessions, "{open} connections are still there");
}

#[test]
fn ctrl_c_is_heard_behind_much_that_was_pasted() {
    let served = Served::new(Limits::STANDARD);
    let mut client = served.client();
    client.send(&format!("where {ENDLESS}\n{}", "where 1\n".repeat(4000)));
    client.expect(BANNER);
    client.send("\x03");
    client.end();
    let (answer, _) = client.rest();
    assert!(answer.ends_with("where: interrupted\n"), "{}", &answer[answer.len().saturating_sub(200)..]);
}
