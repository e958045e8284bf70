//! Text on descriptor 2: its form, its order, and that nobody waits for whoever reads it.

#![cfg(target_os = "linux")]

mod util;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::FromRawFd as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use util::{again, finish, role, runtime, until};

const LIMIT: Duration = Duration::from_secs(20);

/// Runs this test again as a child in the role of the same name and returns its stderr.
fn child(role: &str) -> String {
    let output = finish(again("roles", role), LIMIT);
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{role}: {:?}\n{err}", output.status);
    err
}

#[test]
fn roles() {
    match role().as_deref() {
        Some("form") => form(),
        Some("order") => order(),
        Some("process exit") => process_exit(),
        Some("full pipe") => full_pipe(),
        Some("gone reader") => gone_reader(),
        Some("rotated") => rotated(),
        Some("full disk") => full_disk(),
        Some("forked") => forked(),
        Some("stuck at exit") => stuck_at_exit(),
        _ => {}
    }
}

#[test]
fn a_line_has_the_tasks_id_the_time_and_a_newline() {
    let text = child("form");
    let lines: Vec<&str> = text.lines().collect();
    let [task, plain, raw] = lines[..] else { panic!("three lines, not {text:?}") };
    let (id, rest) = task.split_once(":\t").expect("an id and a tab");
    assert!(id.parse::<u64>().expect("a number") > 0, "{task}");
    let (time, words) = rest.split_at(24);
    // Sat Nov 21 15:04:11 2026
    let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert!(time.is_ascii() && shape.ends_with(":00:00 0000"), "{time:?}");
    assert_eq!(words, " clients: 3");
    assert!(plain.starts_with("0:\t") && plain.ends_with(" by a thread"), "{plain}");
    assert_eq!(raw, "bytes as they are");
}

fn form() {
    let rt = runtime(1);
    rt.block_on(|| coro::print_stderr!("clients: {}", 3));
    coro::print_stderr("by a thread\n");
    coro::write_stderr(b"bytes as they are\n");
}

#[test]
fn every_callers_lines_stay_in_order_and_whole() {
    let text = child("order");
    let mut next = [0u32; 4];
    for line in text.lines() {
        let (who, n) = line.split_once(' ').expect(line);
        let who: usize = who.strip_prefix("task").expect(line).parse().expect(line);
        assert_eq!(n.parse::<u32>().expect(line), next[who], "{line}");
        next[who] += 1;
    }
    assert_eq!(next, [500; 4]);
}

fn order() {
    coro::runner().workers(2).run(|| {
        let tasks: Vec<_> = (0..4)
            .map(|who| {
                coro::spawn(move || {
                    for n in 0..500 {
                        coro::write_stderr(format!("task{who} {n}\n"));
                        coro::yield_slice();
                    }
                })
            })
            .collect();
        tasks.into_iter().for_each(|t| t.join().unwrap());
    });
    // `run` has seen to it that all of it is out.
    // SAFETY: ends the process at once.
    unsafe { libc::_exit(0) }
}

#[test]
fn what_was_written_before_the_exit_is_out() {
    let text = child("process exit");
    assert_eq!(text.lines().count(), 1000, "{text}");
}

fn process_exit() {
    for n in 0..1000 {
        coro::write_stderr(format!("line {n}\n"));
    }
    std::process::exit(0);
}

/// Puts another file in the place of descriptor 2; returns what was there.
fn redirect(to: &impl std::os::fd::AsRawFd) -> File {
    // SAFETY: descriptors that this program owns.
    unsafe {
        let before = libc::dup(2);
        assert!(before >= 0 && libc::dup2(to.as_raw_fd(), 2) == 2);
        File::from_raw_fd(before)
    }
}

fn pipe() -> (File, File) {
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors, which are then owned.
    unsafe {
        assert_eq!(libc::pipe(ends.as_mut_ptr()), 0);
        (File::from_raw_fd(ends[0]), File::from_raw_fd(ends[1]))
    }
}

#[test]
fn a_pipe_that_nobody_reads_holds_up_nobody_and_the_loss_is_told() {
    assert_eq!(child("full pipe"), "each of 3000 lines was seen or its loss was told\n");
}

fn full_pipe() {
    let (mut reader, writer) = pipe();
    let before = redirect(&writer);
    drop(writer);
    let rt = runtime(1);
    let line = |n: u32| format!("{n:05} {}\n", "x".repeat(193));
    // 600,000 bytes: more than pipe and buffer hold.
    let longest = rt.block_on(move || {
        (0..3000)
            .map(|n| {
                let begun = Instant::now();
                coro::write_stderr(line(n));
                begun.elapsed()
            })
            .max()
            .unwrap()
    });
    assert!(longest < Duration::from_secs(1), "a call lasted {longest:?}");
    let reads = std::thread::spawn(move || {
        let mut text = String::new();
        let mut piece = [0; 4096];
        loop {
            let n = reader.read(&mut piece).expect("read");
            text.push_str(std::str::from_utf8(&piece[..n]).expect("ASCII"));
            if text.ends_with("after it\n") {
                return text;
            }
        }
    });
    // The loss is told without another text.
    until(LIMIT, "the writer has nothing left", writer_rests);
    coro::write_stderr("after it\n");
    let text = reads.join().unwrap();
    assert!(text.contains(" lines to stderr were lost\n"), "the loss was not told");
    let (mut told, mut seen, mut next) = (0, 0, 0);
    for l in text.lines() {
        if let Some(rest) = l.strip_prefix("coro: ") {
            told += rest.strip_suffix(" lines to stderr were lost").expect(l).parse::<u32>().expect(l);
        } else if l != "after it" {
            let n: u32 = l.split_once(' ').expect(l).0.parse().expect(l);
            assert!(n >= next, "{n} after {next}");
            (seen, next) = (seen + 1, n + 1);
        }
    }
    assert!(told > 1000 && told + seen == 3000, "{told} lost, {seen} seen");
    let mut before = before;
    writeln!(before, "each of 3000 lines was seen or its loss was told").unwrap();
}

#[test]
fn a_reader_that_is_gone_ends_nothing() {
    assert_eq!(child("gone reader"), "alive\ncoro: 3 lines to stderr were lost\nback\n");
}

fn gone_reader() {
    // SAFETY: as a program in C would have it, so that a write to a pipe without a reader ends the process.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    let (reader, writer) = pipe();
    let mut before = redirect(&writer);
    drop((reader, writer));
    let rt = runtime(1);
    rt.block_on(|| (0..3).for_each(|_| coro::write_stderr("nobody sees this\n")));
    until(LIMIT, "the writer has nothing left", writer_rests);
    writeln!(before, "alive").unwrap();
    redirect(&before);
    coro::write_stderr("back\n");
}

/// Whether the writer waits for text, as the kernel shows it.
fn writer_rests() -> bool {
    let futex = if cfg!(target_arch = "x86_64") { "202 " } else { "98 " };
    std::fs::read_dir("/proc/self/task").expect("threads").flatten().any(|thread| {
        let read = |file: &str| std::fs::read_to_string(thread.path().join(file)).unwrap_or_default();
        read("comm").trim() == "coro-stderr" && read("syscall").starts_with(futex)
    })
}

#[test]
fn a_new_log_file_in_its_place_is_followed() {
    assert_eq!(child("rotated"), "to the first\n");
}

fn rotated() {
    let path = std::env::temp_dir().join(format!("coro-stderr-{}", std::process::id()));
    let file = File::options().create(true).truncate(true).write(true).read(true).open(&path).expect("a file");
    coro::runner().workers(1).run(|| coro::write_stderr("to the first\n"));
    redirect(&file);
    coro::runner().workers(1).run(|| coro::write_stderr("to the second\n"));
    let text = std::fs::read_to_string(&path).expect("the file");
    std::fs::remove_file(&path).expect("the file");
    assert_eq!(text, "to the second\n");
}

#[test]
fn a_full_disk_costs_lines_and_nothing_else() {
    assert_eq!(child("full disk"), "coro: 2 lines to stderr were lost\nroom again\n");
}

fn full_disk() {
    let full = File::options().write(true).open("/dev/full").expect("/dev/full");
    let before = redirect(&full);
    coro::runner().workers(1).run(|| coro::write_stderr("one\ntwo\n"));
    redirect(&before);
    coro::write_stderr("room again\n");
}

#[test]
fn a_forked_child_writes_by_itself() {
    assert_eq!(child("forked"), "by the parent\nby the child\n");
}

fn forked() {
    coro::runner().workers(1).run(|| coro::write_stderr("by the parent\n"));
    // SAFETY: the child makes nothing but a write and ends.
    unsafe {
        let child = libc::fork();
        if child == 0 {
            coro::write_stderr("by the child\n");
            libc::_exit(0);
        }
        let mut status = 0;
        assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
    }
}

#[test]
fn an_end_does_not_wait_for_a_reader_that_does_not_read() {
    let (_reader, writer) = pipe();
    let mut command = again("roles", "stuck at exit");
    command.stderr(Stdio::from(writer));
    let output = finish(command, LIMIT);
    assert!(output.status.success(), "{:?}", output.status);
}

fn stuck_at_exit() {
    (0..3000).for_each(|_| coro::write_stderr([b'\n'; 200]));
    std::process::exit(0);
}
