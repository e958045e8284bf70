//! Which of std's files are taken, and what surrounds each inside std.

/// One file of std's tests, or of its documentation.
#[derive(Debug, Clone, Copy)]
pub struct File {
    /// Its path below `library/`; the name that the table and `exclusions.txt` use.
    pub path: &'static str,
    /// What stands around it in std.
    pub home: Home,
    /// Unstable features that it needs besides those which it, or its crate's root, declares.
    pub features: &'static [&'static str],
    /// Whether its tests open sockets, and get a network of their own where the system allows it.
    pub sockets: bool,
    /// Texts to be replaced first. Each must be there.
    pub mends: &'static [(&'static str, &'static str)],
}

/// What stands around a file of tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Home {
    /// A module of std, whose names the tests reach as `super::…`.
    Module(&'static str),
    /// A test crate: the path of its root, which holds macros and functions that its modules share.
    Crate(&'static str),
    /// Nothing: the file is a crate of its own.
    Alone,
    /// The file is not one of tests: the examples in its documentation are.
    Examples,
}

impl File {
    /// The name of its generated crate.
    pub fn name(&self) -> String {
        let path = self.path.trim_start_matches("std/").trim_start_matches("src/").trim_end_matches(".rs");
        let name = path.trim_end_matches("/tests").replace('/', "_");
        if self.home == Home::Examples { format!("examples_{name}") } else { name }
    }
}

const SYNC: Home = Home::Crate("std/tests/sync/lib.rs");
const THREAD_LOCAL: Home = Home::Crate("std/tests/thread_local/lib.rs");

/// The root of the test crate that most files about `sync` belong to does not declare this one, which its macro needs
/// from outside std's own build.
const fn sync(path: &'static str) -> File {
    File { features: &["sync_poison_mod"], ..file(path, SYNC) }
}

const fn file(path: &'static str, home: Home) -> File {
    File { path, home, features: &[], sockets: false, mends: &[] }
}

const fn with_sockets(path: &'static str, module: &'static str, features: &'static [&'static str]) -> File {
    File { path, home: Home::Module(module), features, sockets: true, mends: &[] }
}

const fn examples(path: &'static str) -> File {
    File { features: MIRRORED_FEATURES, ..file(path, Home::Examples) }
}

const fn examples_with_sockets(path: &'static str) -> File {
    File { sockets: true, ..examples(path) }
}

/// Unstable features whose examples are taken, because `coro` mirrors them.
pub const MIRRORED_FEATURES: &[&str] = &[
    "lock_value_accessors",
    "mapped_lock_guards",
    "mpmc_channel",
    "nonpoison_condvar",
    "nonpoison_mutex",
    "nonpoison_rwlock",
    "oneshot_channel",
    "peer_credentials_unix_socket",
    "reentrant_lock",
    "sync_nonpoison",
    "unix_socket_ancillary_data",
    "unix_socket_peek",
];

/// All files, in the order of the table.
pub const FILES: &[File] = &[
    with_sockets(
        "std/src/net/tcp/tests.rs",
        "net",
        &["read_buf", "core_io_borrowed_buf", "tcp_linger", "tcplistener_into_incoming", "io_error_uncategorized"],
    ),
    File {
        // The number of the descriptor, by way of a private field.
        mends: &[("udpsock.0.socket().as_raw()", "crate::os::fd::AsRawFd::as_raw_fd(&udpsock)")],
        ..with_sockets("std/src/net/udp/tests.rs", "net", &[])
    },
    with_sockets("std/src/net/socket_addr/tests.rs", "net", &[]),
    with_sockets("std/src/net/ip_addr/tests.rs", "net", &[]),
    with_sockets(
        "std/src/os/unix/net/tests.rs",
        "os::unix::net",
        &["unix_socket_ancillary_data", "unix_socket_peek", "unix_set_mark", "read_buf", "core_io_borrowed_buf"],
    ),
    File {
        // std itself never compiles this file (nothing declares it as a module), so nobody noticed the signature.
        mends: &[("(arg: Type) -> RetType", "()")],
        ..with_sockets("std/src/os/unix/net/ucred/tests.rs", "os::unix::net", &["peer_credentials_unix_socket"])
    },
    with_sockets("std/src/os/net/linux_ext/tests.rs", "net", &["tcp_deferaccept"]),
    File {
        // The private function stands behind the lookup of names.
        mends: &[("lookup_host(\"localhost\", 0)", "(\"localhost\", 0).to_socket_addrs()")],
        ..with_sockets("std/src/sys/net/connection/socket/tests.rs", "net", &[])
    },
    file("std/src/thread/tests.rs", Home::Module("thread")),
    sync("std/tests/sync/mutex.rs"),
    sync("std/tests/sync/condvar.rs"),
    sync("std/tests/sync/barrier.rs"),
    sync("std/tests/sync/once.rs"),
    sync("std/tests/sync/once_lock.rs"),
    sync("std/tests/sync/lazy_lock.rs"),
    sync("std/tests/sync/mpsc.rs"),
    sync("std/tests/sync/mpsc_sync.rs"),
    sync("std/tests/sync/mpmc.rs"),
    sync("std/tests/sync/oneshot.rs"),
    sync("std/tests/sync/rwlock.rs"),
    sync("std/tests/sync/reentrant_lock.rs"),
    file("std/tests/thread.rs", Home::Alone),
    file("std/tests/thread_local/tests.rs", THREAD_LOCAL),
    file("std/tests/thread_local/dynamic_tests.rs", THREAD_LOCAL),
    file("std/tests/time.rs", Home::Alone),
    file("std/tests/panic.rs", Home::Alone),
    examples_with_sockets("std/src/net/tcp.rs"),
    examples_with_sockets("std/src/net/udp.rs"),
    examples_with_sockets("std/src/net/socket_addr.rs"),
    examples_with_sockets("std/src/os/unix/net/stream.rs"),
    examples_with_sockets("std/src/os/unix/net/listener.rs"),
    examples_with_sockets("std/src/os/unix/net/datagram.rs"),
    examples_with_sockets("std/src/os/unix/net/addr.rs"),
    examples_with_sockets("std/src/os/unix/net/ancillary.rs"),
    examples_with_sockets("std/src/os/net/linux_ext/addr.rs"),
    examples_with_sockets("std/src/os/net/linux_ext/socket.rs"),
    examples_with_sockets("std/src/os/net/linux_ext/tcp.rs"),
    examples("std/src/sync/poison.rs"),
    examples("std/src/sync/poison/mutex.rs"),
    examples("std/src/sync/poison/condvar.rs"),
    examples("std/src/sync/poison/rwlock.rs"),
    examples("std/src/sync/nonpoison/mutex.rs"),
    examples("std/src/sync/nonpoison/condvar.rs"),
    examples("std/src/sync/nonpoison/rwlock.rs"),
    examples("std/src/sync/barrier.rs"),
    examples("std/src/sync/once.rs"),
    examples("std/src/sync/once_lock.rs"),
    examples("std/src/sync/lazy_lock.rs"),
    examples("std/src/sync/mpsc.rs"),
    examples("std/src/sync/mpmc/mod.rs"),
    examples("std/src/sync/oneshot.rs"),
    examples("std/src/sync/reentrant_lock.rs"),
    examples("std/src/thread/mod.rs"),
    examples("std/src/thread/builder.rs"),
    examples("std/src/thread/current.rs"),
    examples("std/src/thread/functions.rs"),
    examples("std/src/thread/id.rs"),
    examples("std/src/thread/join_handle.rs"),
    examples("std/src/thread/local.rs"),
    examples("std/src/thread/scoped.rs"),
    examples("std/src/thread/thread.rs"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn generated_crates_have_different_names() {
        let names: BTreeSet<String> = FILES.iter().map(File::name).collect();
        assert_eq!(names.len(), FILES.len());
        assert!(names.contains("net_tcp") && names.contains("tests_sync_mutex") && names.contains("tests_thread"));
    }
}
