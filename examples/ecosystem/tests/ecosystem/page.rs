//! The page `docs/ecosystem.md` holds what the backdoors of the servers said under load: this writes it there, if
//! `CORO_RECORD` is set, between the marks of each server.

use std::fmt::Write;
use std::path::Path;
use std::sync::Mutex;

/// Puts the answers of one server into the page.
pub(crate) fn record(name: &str, load: &str, answers: &[(&str, String)]) {
    if std::env::var_os("CORO_RECORD").is_none() {
        return;
    }
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/ecosystem.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (begin, end) = (format!("<!-- {name} begins -->\n"), format!("<!-- {name} ends -->\n"));
    let (before, rest) = page.split_once(&begin).unwrap_or_else(|| panic!("no mark for {name}"));
    let (_, after) = rest.split_once(&end).unwrap();
    let mut text = format!("With {load}:\n\n```text\n");
    for (question, answer) in answers {
        writeln!(text, "> {question}").unwrap();
        writeln!(text, "{answer}").unwrap();
    }
    text.push_str("```\n");
    std::fs::write(&path, format!("{before}{begin}{text}{end}{after}")).unwrap();
}
