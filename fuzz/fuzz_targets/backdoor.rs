//! One client's whole input against the shipped backdoor: its real socket, console thread, session, line and table,
//! over answers of our own. The sources are taken by path, so nothing is copied and nothing private made public.
//!
//! What must hold for any input: the session ends after the end of input, within time; it answers in whole lines of
//! UTF-8 text; and no byte of the input comes back in a form that steers a terminal.
#![no_main]

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;

#[path = "../../src/backdoor/mod.rs"]
mod backdoor;
#[path = "../../src/sys/mod.rs"]
mod sys;

/// What the backdoor asks the program's wiring for.
mod wiring {
    use crate::backdoor::{Answer, Commands, register};

    /// An answer of that many pieces.
    struct Pieces(u32);

    impl Answer for Pieces {
        fn more(&mut self, out: &mut Vec<u8>) -> bool {
            out.extend_from_slice(b"#1 parked 3.2s \"task\" sleep [src/main.rs main|1]\n");
            self.0 = self.0.saturating_sub(1);
            self.0 > 0
        }
    }

    pub(crate) fn commands() {
        register(Commands {
            where_all: || Box::new(Pieces(3)),
            where_is: |id| Box::new(Pieces(u32::try_from(id % 3).unwrap_or(0))),
            banner: || "fuzz".to_owned(),
        });
    }
}

/// The one server; kept, because dropping it would leave its claim on the socket's file to nobody.
fn server() -> &'static backdoor::Server {
    static SERVER: OnceLock<backdoor::Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        let directory = std::env::temp_dir().join(format!("coro-fuzz-{}", std::process::id()));
        std::fs::DirBuilder::new().mode(0o700).recursive(true).create(&directory).expect("a private directory");
        let server = backdoor::serve(directory.join("s")).expect("a backdoor");
        let mode = std::fs::metadata(server.path()).expect("the socket").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        server
    })
}

fuzz_target!(|input: &[u8]| {
    let client = UnixStream::connect(server().path()).expect("a connection");
    // A session that neither answers nor ends is a hang, and shows as an error here.
    client.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
    let mut answer = Vec::new();
    std::thread::scope(|s| {
        // Written beside the reading: either side may be full. A session that ends early (quit) is no error.
        s.spawn(|| {
            let _ = (&client).write_all(input);
            let _ = client.shutdown(Shutdown::Write);
        });
        match (&client).read_to_end(&mut answer) {
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => {}
            Err(e) => panic!("no end of the answer: {e}"),
        }
    });
    let text = std::str::from_utf8(&answer).expect("the answer is UTF-8");
    assert!(text.starts_with("fuzz\n"), "no banner: {text:?}");
    assert!(text.ends_with('\n'), "not whole lines: {text:?}");
    assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "control characters: {text:?}");
});
