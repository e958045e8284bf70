//! `coro repl`: a session inside a runtime of the client's own.

use crate::terminal::Terminal;
use crate::{Scratch, coro, run};

#[test]
fn lines_of_a_pipe_are_evaluated() {
    let lines = "let l = listen(\"127.0.0.1:0\")\nlet t = spawn(|| l.accept().recv_line())\n\
                 connect(l.addr).send(\"hello\\n\")\nt.join()\nnonsense()\n";
    let (code, out, err) = run(&mut coro(&["repl"]), lines);
    let (banner, answers) = out.split_once('\n').expect("a banner");
    assert!(banner.contains("help lists the commands"), "{out}");
    assert_eq!(
        (code, answers, err.as_str()),
        (0, "hello\nunknown command \"nonsense\"; the nearest is sockets; help lists all\n", "")
    );
    let (code, _, err) = run(&mut coro(&["repl", "4711"]), "");
    assert!(code == 2 && err.contains("usage: coro repl"), "{err}");
}

#[test]
fn a_line_is_edited_and_ctrl_c_abandons_what_goes_on() {
    let scratch = Scratch::new("repl");
    let home = scratch.path().display().to_string();
    let environment = [("HOME", home.as_str()), ("XDG_RUNTIME_DIR", home.as_str()), ("XDG_STATE_HOME", home.as_str())];
    let command = format!("{} repl", env!("CARGO_BIN_EXE_coro"));
    let Some(terminal) = Terminal::start(80, 24, &environment, &command) else { return };
    terminal.wait_for("Ctrl-D leaves");
    terminal.wait_for("] act>");
    terminal.press(&["let t = spawn(|| sleep(100.0))", "Enter"]);
    terminal.press(&["spawn(|| print(\"begun\")); sleep(100.0)", "Enter"]);
    // What tasks say comes with an answer.
    terminal.wait_for("still in sleep()");
    terminal.press(&["C-c"]);
    terminal.wait_for("expression: interrupted");
    // The tab is pressed when the prompt is there again.
    terminal.press(&["t.cancel(); try { t.join() } catch { print(6 * 7) }", "Enter"]);
    terminal.wait_for("42\n");
    terminal.press(&["quit", "Enter"]);
    terminal.wait_for("ended with 0");
}
