//! One client's whole input against the shipped backdoor: its real socket, console thread, sessions and commands, over a
//! runtime with a few tasks, some of them with names that a terminal would obey.
//!
//! What must hold for any input: the session ends after the end of input, within time; it answers in whole lines of
//! UTF-8 text; nothing of the input or of the tasks' names comes back in a form that steers a terminal; of telnet, options
//! are refused and nothing else is said.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

/// The socket of the one server, which lives as long as the process.
fn server() -> &'static PathBuf {
    static SERVER: OnceLock<PathBuf> = OnceLock::new();
    SERVER.get_or_init(|| {
        let runtime = coro::Runtime::builder().workers(1).build().expect("a runtime");
        runtime.block_on(|| {
            let lock = std::sync::Arc::new(coro::sync::Mutex::new(()));
            for name in ["plain", "", "a\x1b[2Jb", "two\nlines", "\u{202e}back", "tab\tbell\x07"] {
                let lock = lock.clone();
                coro::spawn_named(name, move || {
                    let _held = lock.lock();
                    coro::sleep(Duration::from_secs(1 << 30));
                });
            }
            coro::sleep(Duration::from_millis(20));
        });
        std::mem::forget(runtime);
        let directory = std::env::temp_dir().join(format!("coro-fuzz-{}", std::process::id()));
        std::fs::DirBuilder::new().mode(0o700).recursive(true).create(&directory).expect("a private directory");
        coro::console::register("fuzz.twice", "", |text: String| format!("{text}{text}"));
        coro::console::register_value("fuzz.value", "", || vec![1, 2, 3]);
        let server = coro::backdoor::Builder::new().unix(directory.join("s"));
        // What an input computes or sleeps is not what is looked for.
        let server = server.expression_limit(Duration::from_millis(100)).serve().expect("a backdoor");
        server.path().to_owned()
    })
}

/// The answer without what refuses the options of telnet: three bytes each, which may stand anywhere but in a character.
fn without_telnet(mut answer: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(answer.len());
    while let Some(at) = answer.iter().position(|byte| *byte == 255) {
        text.extend_from_slice(&answer[..at]);
        let reply = answer.get(at..at + 3).expect("a whole reply");
        assert!(matches!(reply[1], 251 | 252 | 254), "no reply of telnet: {reply:?}");
        answer = &answer[at + 3..];
    }
    text.extend_from_slice(answer);
    text
}

/// Talks to the backdoor as a client with that input does, and looks at the answer.
pub(crate) fn check(input: &[u8]) {
    let client = UnixStream::connect(server()).expect("a connection");
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
    let answer = without_telnet(&answer);
    let text = std::str::from_utf8(&answer).expect("the answer is UTF-8");
    assert!(text.lines().next().is_some_and(|l| l.contains(" pid ") && l.contains("coro ")), "no banner: {text:?}");
    assert!(text.ends_with('\n'), "not whole lines: {text:?}");
    // The two words for colours are the only ones that may bring escapes.
    let coloured = input.windows(5).any(|w| w == b"--col");
    let steers = |c: char| c.is_control() && c != '\n' && !(coloured && c == '\x1b');
    assert!(!text.contains(steers), "control characters: {text:?}");
    assert!(!text.contains('\u{202e}'), "a name changed the writing direction: {text:?}");
}
