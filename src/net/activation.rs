//! Sockets that systemd (or anything else that speaks its protocol) opened before it started this program.
//!
//! The starter listens, and starts the program at the first connection or at boot: no connection is refused while the program
//! starts, crashes or is replaced, ports below 1024 need no privilege in it, and its directory of sockets can be
//! anybody's. Three variables say what is there: `LISTEN_PID` for which process, `LISTEN_FDS` how many descriptors from number
//! 3 on, `LISTEN_FDNAMES` how they are called (`FileDescriptorName=`, else the unit's name), with colons between.
//!
//! ```ini
//! # app.socket
//! [Socket]
//! ListenStream=443
//! FileDescriptorName=https
//!
//! [Install]
//! WantedBy=sockets.target
//! ```
//!
//! ```no_run
//! # fn main() -> std::io::Result<()> {
//! use coro::net::{TcpListener, activation};
//!
//! let listener = match activation::sockets()? {
//!     Some(mut sockets) => sockets.tcp_listener("https")?,
//!     None => TcpListener::bind("0.0.0.0:8443")?, // started by hand
//! };
//! # drop(listener);
//! # Ok(())
//! # }
//! ```
//!
//! Invariants: a descriptor is taken only if the variables are for this process, and it is open and was inherited; it is
//! close-on-exec from then on. Must not know: what the program does with the sockets.

#![forbid(unsafe_code)]

use std::env;
use std::io;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use super::PassedSockets;
pub use super::raw::remove_variables;
use crate::sys::inherited::{self, NotTaken};

pub(super) const VARIABLES: [&str; 3] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];
/// The number of the first descriptor, by the protocol.
const FIRST: i32 = 3;
/// What has no name is called so, as systemd's own library does.
const UNNAMED: &str = "unknown";

/// The sockets that the starter of this process opened for it; `None` if there are none, or the variables are meant for
/// another process (that of a parent, which left them in the environment).
///
/// Each descriptor is made close-on-exec, and is asked what it is. It can be had once.
///
/// # Errors
/// If the variables contradict themselves; if a descriptor is not open, or was opened by this process itself, which means
/// that the call came too late or the variables lie; `AlreadyExists` at the second call. The message says which.
#[track_caller]
pub fn sockets() -> io::Result<Option<PassedSockets>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let [pid, count, names] = VARIABLES.map(|v| env::var_os(v).map(|v| v.to_string_lossy().into_owned()));
    let Some(names) = names_for(pid.as_deref(), count.as_deref(), names.as_deref(), std::process::id())? else {
        return Ok(None);
    };
    if TAKEN.swap(true, Ordering::Relaxed) {
        let text = "the sockets that this process was started with have been taken before";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
    }
    let mut sockets = PassedSockets::default();
    for (fd, name) in (FIRST..).zip(names) {
        let why = match inherited::take(fd, None) {
            Ok(owned) => {
                sockets.push(name, owned);
                continue;
            }
            Err(NotTaken::Closed) => "is not open",
            Err(NotTaken::OpenedHere) => {
                "was opened by this process, so it is none of the starter's; ask for the sockets before closing any"
            }
            Err(NotTaken::Before | NotTaken::Another) => "has been taken before",
        };
        return Err(invalid(format!("LISTEN_FDS promises descriptor {fd} ({name:?}), but that {why}")));
    }
    Ok(Some(sockets))
}

/// Keeps the variables from a program that is to be started. It would not believe them anyway, as they name this process.
pub fn hide_from(command: &mut Command) -> &mut Command {
    VARIABLES.into_iter().fold(command, Command::env_remove)
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// One name for each descriptor, if the variables are for the process `me`.
fn names_for(pid: Option<&str>, count: Option<&str>, names: Option<&str>, me: u32) -> io::Result<Option<Vec<String>>> {
    let (Some(pid), Some(count)) = (pid, count) else { return Ok(None) };
    let pid: u32 = pid.parse().map_err(|_| invalid(format!("LISTEN_PID is {pid:?}, which is no process id")))?;
    if pid != me {
        return Ok(None);
    }
    // Sixty-five thousand are more than any starter opens.
    let n =
        count.parse::<u16>().map_err(|_| invalid(format!("LISTEN_FDS is {count:?}, which is no number of sockets")))?;
    let n = usize::from(n);
    if n == 0 {
        return Ok(None);
    }
    let Some(names) = names else { return Ok(Some(vec![UNNAMED.to_owned(); n])) };
    let names: Vec<String> = names.split(':').map(str::to_owned).collect();
    if names.len() != n {
        let text = format!("LISTEN_FDS promises {n} descriptors, but LISTEN_FDNAMES has {} names", names.len());
        return Err(invalid(text));
    }
    Ok(Some(names))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(pid: &str, count: &str, names: Option<&str>) -> Result<Option<Vec<String>>, String> {
        names_for(Some(pid), Some(count), names, 7).map_err(|e| e.to_string())
    }

    #[test]
    fn the_variables_are_believed_only_if_they_agree() {
        let some = |names: &[&str]| Ok(Some(names.iter().map(|n| n.to_string()).collect()));
        assert_eq!(names("7", "2", Some("http:admin")), some(&["http", "admin"]));
        assert_eq!(names("7", "2", None), some(&["unknown", "unknown"]));
        assert_eq!(names("7", "1", Some("")), some(&[""]));
        assert_eq!(names("8", "nonsense", Some("a:b:c")), Ok(None), "another's are not even read");
        assert_eq!(names("7", "0", None), Ok(None));
        assert_eq!(names_for(None, Some("1"), None, 7).unwrap(), None);
        assert_eq!(names_for(Some("7"), None, None, 7).unwrap(), None);
        for (pid, count, list, expected) in [
            ("self", "1", None, "LISTEN_PID is \"self\", which is no process id"),
            ("7", "-1", None, "LISTEN_FDS is \"-1\", which is no number of sockets"),
            ("7", "\u{1b}[2J", None, "LISTEN_FDS is \"\\u{1b}[2J\", which is no number of sockets"),
            ("7", "2", Some("a"), "LISTEN_FDS promises 2 descriptors, but LISTEN_FDNAMES has 1 names"),
        ] {
            assert_eq!(names(pid, count, list), Err(expected.to_owned()));
        }
    }
}
