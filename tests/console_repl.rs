//! A session at a program's own terminal: the program is this one again, with its input and output in pipes.
#![cfg(all(feature = "script", target_os = "linux"))]

mod util;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use coro::console;
use coro::inspect::{Options, Snapshot};
use coro::net::TcpListener;
use util::sockets::Directory;
use util::{again, role, until};

/// Only what fails takes this long, and a machine that is very busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// The program with the subcommand.
#[test]
fn program() {
    let Some(role) = role() else { return };
    let work = || {
        let echo = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = echo.local_addr().expect("an address").to_string();
        coro::spawn_named("echo", move || {
            for conn in echo.incoming().flatten() {
                coro::spawn(move || std::io::copy(&mut &conn, &mut &conn));
            }
        });
        console::register_value("echo", "where it listens", move || address.clone());
        console::register("nap", "blocks its thread", || std::thread::sleep(Duration::from_millis(50)));
        let before = action();
        console::repl().expect("a session");
        assert_eq!(action(), before, "the action of SIGINT");
        // The last of them may still be on its way out. Names alone: reading lines takes long.
        let mut names = Options::default();
        (names.stacks, names.running, names.objects) = (false, false, false);
        until(PATIENCE, "no task left", || {
            !Snapshot::take(&names).tasks.iter().any(|t| t.name.as_deref().is_some_and(is_repl))
        });
        println!("LEFT");
    };
    match role.as_str() {
        "task" => coro::runner().workers(1).run(work),
        _ => work(),
    }
}

fn is_repl(name: &str) -> bool {
    name.starts_with("repl")
}

/// What SIGINT does.
fn action() -> usize {
    // SAFETY: plain data, which the call fills.
    unsafe {
        let mut old: libc::sigaction = std::mem::zeroed();
        assert_eq!(libc::sigaction(libc::SIGINT, std::ptr::null(), &mut old), 0);
        old.sa_sigaction
    }
}

/// A running program.
struct Repl {
    child: Child,
    input: Option<ChildStdin>,
    said: Arc<Mutex<String>>,
}

impl Repl {
    fn start(role: &str) -> Repl {
        let mut command = again("program", role);
        let mut child = command.stdin(Stdio::piped()).stderr(Stdio::inherit()).spawn().expect("a child");
        let (input, mut output) = (child.stdin.take(), child.stdout.take().expect("piped"));
        let said = Arc::new(Mutex::new(String::new()));
        let into = said.clone();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(n @ 1..) = output.read(&mut bytes) {
                into.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..n]));
            }
            into.lock().unwrap().push_str("END");
        });
        Repl { child, input, said }
    }

    fn send(&mut self, text: &str) {
        self.input.as_mut().expect("open").write_all(text.as_bytes()).expect("sent");
    }

    #[track_caller]
    fn wait_for(&self, text: &str) {
        until(PATIENCE, text, || self.said.lock().unwrap().contains(text));
    }

    fn interrupt(&self) {
        // SAFETY: our own child, which was not waited for.
        assert_eq!(unsafe { libc::kill(self.child.id() as libc::pid_t, libc::SIGINT) }, 0);
    }

    /// All that it said between its banner and its end, numbers masked.
    #[track_caller]
    fn end(mut self) -> String {
        drop(self.input.take());
        until(PATIENCE, "the end", || self.said.lock().unwrap().ends_with("END"));
        let said = self.said.lock().unwrap().clone();
        assert!(self.child.wait().expect("ended").success(), "{said}");
        let (_, said) = said.split_once("help lists the commands\n").expect("a banner");
        let (said, _) = said.split_once("LEFT\n").expect("the last word");
        // On a busy machine it may say that it is not done yet.
        masked(&said.split_inclusive('\n').filter(|line| !line.starts_with("… after ")).collect::<String>())
    }
}

impl Drop for Repl {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Ids and ports.
fn masked(text: &str) -> String {
    let (mut out, mut number) = (String::new(), false);
    for c in text.chars() {
        number = c.is_ascii_digit() && (number || out.ends_with('#') || out.ends_with("127.0.0.1:"));
        if !number {
            out.push(c);
        } else if !out.ends_with('N') {
            out.push('N');
        }
    }
    out
}

/// What these lines are answered, all of them sent at once.
#[track_caller]
fn said(lines: &str) -> String {
    let mut repl = Repl::start("task");
    repl.send(lines);
    repl.end()
}

#[test]
fn a_connection_from_end_to_end() {
    assert_eq!(
        said(
            "let c = connect(echo)\nc.send(\"hello\\nthere\\nfoo\")\nc.recv_line()\nc.recv(3)\nc.recv_exact(6)\nc\n\
             c.close()\nc.recv()\nc\nconnect(\"127.0.0.1:1\")\nc.recv(0)"
        ),
        "hello\nthe\nre\nfoo\nconnection 127.0.0.1:N → 127.0.0.1:N\n\
         recv: it was closed here (column 3)\nconnection 127.0.0.1:N → 127.0.0.1:N, closed\n\
         connect: 127.0.0.1:N: Connection refused (os error 111) (column 1)\n\
         recv: 0 bytes are not from 1 to 1048576 (column 3)\n"
    );
}

#[test]
fn a_server_of_closures_is_listed_while_it_waits_and_can_be_ended() {
    assert_eq!(
        said(
            "let l = listen(\"127.0.0.1:0\")\nl\n\
             let s = spawn(|| loop { let c = l.accept(); spawn(|| { c.send(\"you are \" + c.recv_line()); c.close() }) })\n\
             [\"one\", \"two\"].map(|n| { let c = connect(l.addr); c.send(n + \"\\n\"); [c.recv(), c.recv()] })\n\
             tasks().filter(|t| t.kind == \"accept\" && t.name.starts_with(\"repl: let s\")).map(|t| t.name)\n\
             s\ns.cancel(); sleep(0.01); s\ns.join()\nlet a = spawn(|| l.accept()); sleep(0.01); l.close(); a.join()\nl\n"
        ),
        "listener 127.0.0.1:N\n[\"you are one\", ()]\n[\"you are two\", ()]\n\
         repl: let s = spawn(|| loop { let c = l.accept(); spaw…\n\
         task #N, not ended\ntask #N, ended with an error\ntask #N: its task was cancelled (column 3)\n\
         task #N: accept: the listener was closed (column 20) (column 57)\nlistener 127.0.0.1:N, closed\n"
    );
}

/// There is one worker.
#[test]
fn nothing_holds_up_the_other_tasks() {
    for busy in [
        "sleep(0.1)",
        "while ran < 3 {}",
        "nap()",
        // Not so many that they would give way by their steps.
        "for i in 0..50 { if ran == 3 { break } tasks() }",
        "let c = connect(echo); timeout(0.1, || c.recv())",
    ] {
        let lines = format!(
            "let ran = 0; let t = spawn(|| {{ for i in 0..3 {{ sleep(0.002); ran += 1 }} print(\"meanwhile\"); 7 }}); \
             try {{ {busy} }} catch {{}} `${{ran}} ${{t.join()}}`\nran\n"
        );
        assert_eq!(said(&lines), "#N: meanwhile\n3 7\n3\n", "{busy}");
    }
}

/// The loop has no time to reach its limit of operations, however fast the machine is.
#[test]
fn limits_around_anything() {
    assert_eq!(
        said(
            "timeout(5, || 6 * 7)\ntimeout(0.02, || sleep(100.0))\ntimeout(0.002, || loop {})\n\
             try { timeout(0.01, || timeout(50, || sleep(50))) } catch (e) { print(`caught: ${e}`) }\n\
             let l = listen(\"127.0.0.1:0\"); timeout(0.02, || l.accept())\nloop {}\ntimeout(-1, || 1)\n"
        ),
        "42\ntimeout: not done within 0.02 s (column 1)\ntimeout: not done within 0.002 s (column 1)\n\
         caught: timeout: not done within 0.01 s\n\
         timeout: not done within 0.02 s (column 32)\n\
         too many operations: at most 262144 without waiting in between (column 6)\n\
         timeout: -1 s is no length of time (column 1)\n"
    );
}

#[test]
fn errors_of_tasks_are_told_once() {
    assert_eq!(
        said(
            "let t = spawn(|| 1 / 0); sleep(0.05)\nlet t = spawn(|| { sleep(0.02); nothing() }); t.join()\n\
             let t = spawn(|| sleep(50)); t.cancel(); try { t.join() } catch { print(\"ended\") }\nspawn(1)\n"
        ),
        "#N ended with an error: Division by zero: 1 / 0 (column 20)\n\
         task #N: Function not found: nothing (); functions lists them (column 33) (column 49)\nended\n\
         Function not found: spawn (i64); it is spawn(closure) (column 1)\n"
    );
}

#[test]
fn variables_functions_and_closures_stay() {
    assert_eq!(
        said(
            "fn twice(x) { x * 2 }\nlet f = |x| twice(x) + 1\nf.call(20)\nlet t = spawn(|| f.call(_))\nt.join() + _\n\
             let c = connect(echo); c\nlast.send(\"x\"); c.recv()\nconst K = 3\nspawn(|| K + 1).join()\n"
        ),
        "41\n124\nconnection 127.0.0.1:N → 127.0.0.1:N\nx\n4\n"
    );
}

/// The engine borrows a variable while a method of it runs.
#[test]
fn a_variable_that_a_waiting_task_uses_is_an_error_and_nothing_worse() {
    assert_eq!(
        said(
            "let l = [1, 2]; let t = spawn(|| l.map(|x| { sleep(0.05); x + 1 })); sleep(0.01); l.len()\n\
             let l = [1, 2]; let t = spawn(|| l.map(|x| { sleep(0.05); x + 1 })); sleep(0.01); try { l.push(3) } catch { } t.join()\n\
             l\n"
        ),
        "a variable is in use by another task, which waits meanwhile\n2\n3\n1\n2\n"
    );
}

#[test]
fn ctrl_c_abandons_what_goes_on_and_nothing_else() {
    let mut repl = Repl::start("task");
    repl.send("let t = spawn(|| { sleep(0.2); print(\"goes on\") })\n");
    for endless in ["sleep(100.0)", "loop { sleep(0.001) }", "listen(\"127.0.0.1:0\").accept()"] {
        repl.send(&format!("spawn(|| print(`begun`)); {endless}\n'not asked'\n"));
        repl.wait_for("begun\n");
        repl.interrupt();
        repl.wait_for("expression: interrupted\n");
        repl.said.lock().unwrap().clear();
    }
    repl.send("t.join(); 1 + 1\n");
    repl.wait_for("2\n");
    // Where there is no more input it is the end.
    repl.send("spawn(|| print(`begun`)); sleep(100.0)\n");
    repl.wait_for("begun\n");
    drop(repl.input.take());
    repl.interrupt();
    until(PATIENCE, "the end", || repl.said.lock().unwrap().ends_with("END"));
    assert!(repl.said.lock().unwrap().contains("goes on\n"));
    assert!(repl.child.wait().expect("ended").success());
}

#[test]
fn on_a_plain_thread_it_is_the_same_and_leaving_ends_what_was_spawned() {
    let mut repl = Repl::start("thread");
    repl.send("for i in 0..3 { spawn(|| sleep(100.0)) }\nhelp uptime\nmemory trim now\nquit\n'not asked'\n");
    assert_eq!(
        repl.end(),
        "uptime                                    how long the process has run, and its CPU time\nmemory knows no \"trim\", only trim\n"
    );
}

/// What others can reach has none of it.
#[test]
fn a_session_from_outside_has_none_of_it() {
    coro::spawn(|| ()).join().expect("a runtime");
    let directory = Directory::new();
    let path = directory.at("b.sock");
    let server = coro::backdoor::serve(&path).expect("served");
    for (line, told) in [
        ("connect(\"127.0.0.1:1\")", "Function not found: connect ("),
        ("listen(\"127.0.0.1:0\")", "Function not found: listen ("),
        ("timeout(1, || 2)", "Function not found: timeout ("),
        ("let t = spawn(|| 1)", "'spawn' is a reserved keyword"),
    ] {
        let mut stream = UnixStream::connect(&path).expect("connected");
        stream.write_all(format!("{line}\nfunctions\n").as_bytes()).expect("sent");
        stream.shutdown(std::net::Shutdown::Write).expect("sent");
        let mut said = String::new();
        stream.read_to_string(&mut said).expect("an answer");
        assert!(said.contains(told) && !said.contains("\nconnect("), "{line}: {said}");
    }
    server.close();
}
