//! The test runner inside a generated crate: lists the tests, or runs one of them in this process.
//!
//!     --list                        name, and `ignored` or `run`, a line each
//!     --network                     `own` or `shared`, and `ipv6` or `ipv4`
//!     --exact NAME --mode MODE      exit code 0 if it passed

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::exit;
use std::time::Duration;

use test::{ShouldPanic, StaticTestFn, TestDescAndFn};

const PASSED: i32 = 0;
const FAILED: i32 = 1;
const MISUSED: i32 = 2;

pub fn run(tests: &[&TestDescAndFn]) {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["--list"] => {
            for test in tests {
                println!("{}\t{}", short_name(test), if test.desc.ignore { "ignored" } else { "run" });
            }
        }
        ["--network"] => {
            let network = if own_network() { "own" } else { "shared" };
            println!("{network}\t{}", if crate::helpers::has_ipv6() { "ipv6" } else { "ipv4" });
        }
        ["--exact", name, "--mode", mode] => {
            let Some(test) = tests.iter().find(|t| short_name(t) == name) else {
                eprintln!("no test is called {name}");
                exit(MISUSED);
            };
            // Before there is a second thread; see there.
            if std::env::var_os("CONFORMANCE_SOCKETS").is_some() {
                own_network();
            }
            tell_of_a_hang();
            exit(run_one(test, mode));
        }
        _ => {
            eprintln!("usage: --list | --network | --exact NAME --mode std|plain|task1|task4");
            exit(MISUSED);
        }
    }
}

/// The name inside the file, without the modules that the generator put around it.
fn short_name(test: &TestDescAndFn) -> &str {
    let name = test.desc.name.as_slice();
    name.split_once("tests::").map_or(name, |(_, short)| short)
}

fn run_one(test: &TestDescAndFn, mode: &str) -> i32 {
    let test::TestFn::StaticTestFn(f) = test.testfn else {
        eprintln!("this kind of test is not known here");
        return MISUSED;
    };
    let body = move || catch_unwind(AssertUnwindSafe(f));
    let outcome = match mode {
        "std" | "plain" => std::thread::spawn(body).join().expect("the panic was caught inside"),
        "task1" => crate::port::modes::in_task(1, body),
        "task4" => crate::port::modes::in_task(4, body),
        _ => {
            eprintln!("no mode is called {mode}");
            return MISUSED;
        }
    };
    match (outcome, test.desc.should_panic) {
        (Ok(Ok(())), ShouldPanic::No) | (Err(_), ShouldPanic::Yes) => PASSED,
        (Err(payload), ShouldPanic::YesWithMessage(want)) => {
            let text = payload.downcast_ref::<&str>().copied().or(payload.downcast_ref::<String>().map(String::as_str));
            match text {
                Some(text) if text.contains(want) => PASSED,
                _ => {
                    eprintln!("it panicked as it should, but not with {want:?}");
                    FAILED
                }
            }
        }
        (Ok(Err(why)), _) => {
            eprintln!("it returned an error: {why}");
            FAILED
        }
        (Ok(Ok(())), _) => {
            eprintln!("it did not panic as it should");
            FAILED
        }
        (Err(_), ShouldPanic::No) => FAILED,
    }
}

/// Shortly before the outer runner ends a hanging process, the process says where its tasks are.
fn tell_of_a_hang() {
    let Some(limit) = std::env::var("CONFORMANCE_LIMIT_MS").ok().and_then(|ms| ms.parse().ok()) else { return };
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(limit) * 3 / 4);
        eprintln!("still running after {} ms; the tasks:\n{}", limit * 3 / 4, crate::port::modes::where_all());
    });
}

/// Moves the process, while it has one thread, into a network namespace with nothing but a loopback interface: its
/// ports and abstract names are its own, and nothing that a test does leaves the machine. Whether that was allowed.
fn own_network() -> bool {
    let (uid, gid) = unsafe { (libc::getuid(), libc::getgid()) };
    // SAFETY: the call takes flags; it changes this process alone.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        // SAFETY: as above.
        if unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNET) } != 0 {
            return false;
        }
        // Without the maps no file could be created any more.
        let _ = std::fs::write("/proc/self/setgroups", "deny");
        for (file, id) in [("uid_map", uid), ("gid_map", gid)] {
            std::fs::write(format!("/proc/self/{file}"), format!("{id} {id} 1")).expect("a map of the user");
        }
    }
    loopback_up().expect("the loopback interface of the new namespace");
    true
}

fn loopback_up() -> std::io::Result<()> {
    use std::os::fd::AsRawFd;
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: all bytes zero are an empty request.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the request is valid, names the interface with a trailing zero, and outlives the call.
    match unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &request) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}
