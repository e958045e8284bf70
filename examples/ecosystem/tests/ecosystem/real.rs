//! Programs of others, from Debian's packages (`.ci/servers` installs them): started at an address of their own in a
//! directory of their own, ended by their process id. What is not there is skipped by name.

use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::until;

/// A child that is killed at the end.
pub(crate) struct Kept(pub(crate) Child);

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A directory that goes away.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new() -> Directory {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("coro-ecosystem-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        // Of a process that had this number before and was killed.
        let _ = std::fs::remove_dir_all(&path);
        std::fs::DirBuilder::new().mode(0o700).create(&path).unwrap();
        Directory(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Whether that program is there; says so if not.
pub(crate) fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|p| p.join(program).exists());
    if !found {
        // Past the capture of the test harness, or nobody would see it.
        coro::print_stderr(format!("SKIPPED: {program} is not here; .ci/servers installs it"));
    }
    found
}

/// An address of loopback that no other process takes: Linux has all of 127.0.0.0/8 there. A free port would be free for
/// others, too, until the server binds it.
pub(crate) fn own_addr(port: u16) -> SocketAddr {
    let [_, a, b, c] = std::process::id().to_be_bytes();
    // A process id has 22 bits.
    ([127, 64 + a, b, c], port).into()
}

/// A server whose words nobody needs.
pub(crate) fn quietly(command: &mut Command) -> Kept {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Kept(command.spawn().unwrap())
}

pub(crate) fn until_it_listens(child: &mut Kept, addr: SocketAddr) {
    until(&format!("something listens on {addr}"), || {
        if let Some(status) = child.0.try_wait().unwrap() {
            panic!("it has ended with {status} before it listened on {addr}");
        }
        TcpStream::connect(addr).is_ok()
    });
}
