//! The other end of a socket that says what a test wants, once.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread::JoinHandle;

use crate::{PATIENCE, Scratch};

pub(crate) const BANNER: &str = "fake pid 1, coro 0.1.0, 2 workers; help lists the commands\n";

/// A served socket.
pub(crate) struct Fake {
    scratch: Scratch,
    thread: Option<JoinHandle<()>>,
}

/// One connection.
pub(crate) struct Talk {
    lines: BufReader<UnixStream>,
}

impl Fake {
    /// `talk` is had with the first who connects.
    pub(crate) fn start(test: &str, talk: impl FnOnce(&mut Talk) + Send + 'static) -> Fake {
        let scratch = Scratch::new(test);
        let listener = UnixListener::bind(scratch.join("s.sock")).expect("a socket");
        let thread = std::thread::spawn(move || {
            let (stream, _) = listener.accept().expect("a client");
            stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
            talk(&mut Talk { lines: BufReader::new(stream) });
        });
        Fake { scratch, thread: Some(thread) }
    }

    pub(crate) fn path(&self) -> String {
        self.scratch.join("s.sock").display().to_string()
    }

    /// Waits for the talk's end, and fails as it did.
    pub(crate) fn finish(mut self) {
        if let Err(payload) = self.thread.take().expect("a thread").join() {
            std::panic::resume_unwind(payload);
        }
    }
}

impl Talk {
    pub(crate) fn say(&mut self, text: &str) {
        // A client that leaves early is one of the tests.
        let _ = self.lines.get_mut().write_all(text.as_bytes());
    }

    /// What a server of ours begins with.
    pub(crate) fn greet(&mut self) {
        self.expect("#lines");
        self.say(BANNER);
        self.say("{\"done\":\"#lines\"}\n");
    }

    #[track_caller]
    pub(crate) fn expect(&mut self, line: &str) {
        let mut came = String::new();
        self.lines.read_line(&mut came).expect("a line");
        assert_eq!(came.trim_end_matches('\n'), line);
    }

    #[track_caller]
    pub(crate) fn expect_byte(&mut self, byte: u8) {
        let mut came = [0];
        self.lines.read_exact(&mut came).expect("a byte");
        assert_eq!(came[0], byte);
    }
}
