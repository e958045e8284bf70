//! A terminal of any size with the client in it: tmux, where there is one.

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::until;

/// One session of tmux with a server of its own.
pub(crate) struct Terminal {
    socket: String,
}

impl Terminal {
    /// Runs `command` for the shell, with `environment`. None, and a word about it, where there is no tmux.
    pub(crate) fn start(columns: u16, rows: u16, environment: &[(&str, &str)], command: &str) -> Option<Terminal> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let socket = format!("coro-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let terminal = Terminal { socket };
        let set: Vec<String> = environment.iter().map(|(name, value)| format!("{name}='{value}'")).collect();
        // What was on the screen before, and how it ended, stay to be seen.
        // The shell must survive a Ctrl-C that is meant for the client.
        let script =
            format!("trap : INT; unset NO_COLOR; {} {command}; echo \"ended with $?\"; sleep 60", set.join(" "));
        let (columns, rows) = (columns.to_string(), rows.to_string());
        let mut tmux = terminal.command();
        tmux.args(["-f", "/dev/null", "new-session", "-d", "-x", &columns, "-y", &rows, "sh", "-c", &script]);
        match tmux.output() {
            Ok(output) if output.status.success() => Some(terminal),
            Ok(output) => panic!("tmux: {}", String::from_utf8_lossy(&output.stderr)),
            Err(error) => {
                println!("skipped: no tmux ({error})");
                None
            }
        }
    }

    fn command(&self) -> Command {
        let mut tmux = Command::new("tmux");
        tmux.args(["-L", &self.socket]).env_remove("TMUX").env("LC_ALL", "C.UTF-8");
        tmux
    }

    #[track_caller]
    fn tmux(&self, arguments: &[&str]) -> String {
        let output = self.command().args(arguments).output().expect("tmux");
        assert!(output.status.success(), "tmux {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    /// Keys by tmux's names, such as `Enter` and `C-c`, else as text.
    pub(crate) fn press(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys", "--"], keys].concat());
    }

    pub(crate) fn resize(&self, columns: u16, rows: u16) {
        self.tmux(&["resize-window", "-x", &columns.to_string(), "-y", &rows.to_string()]);
    }

    pub(crate) fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// With colours.
    pub(crate) fn coloured(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-e"])
    }

    /// The first screen of which `is` holds.
    #[track_caller]
    pub(crate) fn wait(&self, what: &str, is: impl Fn(&str) -> bool) -> String {
        until(what, || Ok(self.screen()).and_then(|screen| if is(&screen) { Ok(screen) } else { Err(screen) }))
    }

    #[track_caller]
    pub(crate) fn wait_for(&self, text: &str) -> String {
        self.wait(text, |screen| screen.contains(text))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.command().arg("kill-server").output();
    }
}
