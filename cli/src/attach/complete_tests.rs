//! Tests of completion, against answers that are kept beforehand.

#![forbid(unsafe_code)]

use super::*;
use crate::known::Command;

fn completions() -> Completions {
    let command = |name: &str, others: &[&str], arguments: &str| Command {
        name: name.into(),
        others: others.iter().map(|name| (*name).to_owned()).collect(),
        arguments: arguments.into(),
        help: String::new(),
    };
    let commands = vec![
        command("where_all", &[], "[--json]"),
        command("where", &["where_is"], "ID [--json]"),
        command("tasks", &[], "[FILTERS] [--json]"),
        command("count", &[], "[by FIELD] [FILTERS] [--json]"),
        command("fds", &["sockets"], "[--all] [--json]"),
        command("cancel", &[], "ID… | --match PATTERN --count N"),
        command("set", &[], "[NAME VALUE]"),
        command("functions", &[], "[--json]"),
        command("histogram", &[], "[CLASS]"),
        command("enable", &[], "read|probe|act"),
        command("#json", &["#lines"], ""),
        command("help", &["?"], "[COMMAND]"),
    ];
    let it = Completions::new(Target::Path("/nowhere".into()), Known { commands });
    let tasks = [
        "#1 parked 3.2s lock \"pool\" src/db.rs:31",
        "#17 parked 3.2s \"DB writer\" lock \"x\" [a|1]",
        "#18 running on worker 3 for 3.2 s \"client\" [a|1]",
        "3 tasks: 3 parked",
    ];
    it.facts.keep("where_all", &tasks);
    for part in ["wri", "cli", "xyz"] {
        it.facts.keep(&format!("tasks name~\"{part}\" limit=200"), &tasks);
    }
    it.facts.keep(
        "set",
        &[
            "set latency 200ms         50ms|off: slices that last longer are reported (probe)",
            "set selfishness 64        1..32768: I/O calls (act)",
        ],
    );
    it.facts.keep("tasks by=class limit=200", &["class   tasks  run time  oldest", "echo       20        3s  1s #4"]);
    it.facts.keep(
        "functions --json",
        &[
            r#"{"head":{"schema_version":1,"answer":"functions"}}"#,
            r#"{"function":{"name":"app.players.count","usage":"app.players.count()","kind":"function","of":"program","tier":"read","doc":""}}"#,
            r#"{"function":{"name":"config","usage":"config","kind":"value","of":"program","tier":"read","doc":"a: b"}}"#,
            r#"{"function":{"name":"set_limit","usage":"set_limit(n: int)","kind":"function","of":"program","tier":"act","doc":""}}"#,
            r#"{"function":{"name":"tasks","usage":"tasks()","kind":"function","of":"coro","tier":"read","doc":"every task: id, name, state, age, …"}}"#,
            r#"{"function":{"name":"where","usage":"where(id)","kind":"function","of":"coro","tier":"read","doc":"one task; () if there is none"}}"#,
            r#"{"function":{"name":"peers","usage":"peers()","kind":"function","of":"coro","tier":"read","doc":"the other ends: peer, sockets"}}"#,
        ],
    );
    it
}

#[track_caller]
fn expect(it: &Completions, line: &str, start: usize, found: &[&str]) {
    let (at, all) = it.of(line);
    let written: Vec<&str> = all.iter().map(|(_, written)| written.as_str()).collect();
    assert_eq!((at, &written[..]), (start, found), "{line:?}");
}

#[test]
fn commands_options_and_tasks_are_completed() {
    let it = completions();
    for (line, start, found) in [
        ("whe", 0, &["where ", "where_all ", "where_is "][..]),
        ("coro.f", 0, &["coro.fds ", "coro.functions "]),
        ("help s", 5, &["set", "sockets"]),
        ("fds --", 4, &["--all", "--json"]),
        ("fds --all --", 10, &["--json"]),
        ("enable a", 7, &["act"]),
        ("where 1", 6, &["1", "17", "18"]),
        ("where #17", 6, &["#17"]),
        ("where(17", 6, &["17"]),
        ("where wri", 6, &["17"]),
        ("where 17 --", 9, &["--json"]),
        ("cancel 1 wri", 9, &["17"]),
        ("cancel --match wri", 15, &[]),
        ("cancel --", 7, &["--match", "--count"]),
        ("nonsense x", 9, &[]),
    ] {
        expect(&it, line, start, found);
    }
    let (_, shown) = it.of("where wri");
    assert_eq!(shown[0].0, "17 \"DB writer\" parked");
    let (_, all) = it.of("");
    let all: Vec<&str> = all.iter().map(|(_, written)| written.as_str()).collect();
    assert!(
        all.contains(&"where ") && all.contains(&"set_limit(") && !all.iter().any(|it| it.starts_with('#')),
        "{all:?}"
    );
}

#[test]
fn what_a_command_takes_is_completed() {
    let it = completions();
    for (line, start, found) in [
        ("tasks st", 6, &["stack~", "state="][..]),
        ("tasks state=p", 6, &["state=parked"]),
        ("tasks state!=run", 6, &["state!=runnable", "state!=running"]),
        ("tasks wait=read", 6, &["wait=read", "wait=read_lock"]),
        ("tasks class=", 6, &["class=echo"]),
        ("tasks name=cli", 6, &["name=client"]),
        ("tasks state=parked so", 19, &["sort="]),
        ("tasks age>5", 6, &[]),
        ("tasks -", 6, &["--json"]),
        ("count ", 6, &["by ", "--json"]),
        ("count by p", 9, &["parent ", "peer "]),
        ("count by class so", 15, &[]),
        ("set l", 4, &["latency "]),
        ("set latency o", 12, &["off"]),
        ("set selfishness ", 16, &[]),
        ("histogram e", 10, &["echo"]),
    ] {
        expect(&it, line, start, found);
    }
}

#[test]
fn expressions_have_functions_values_variables_and_fields() {
    let it = completions();
    it.evaluated("let slow = tasks().filter(|t| t.age > 5.0)");
    it.evaluated("tasks let=x");
    for (line, start, found) in [
        ("set_", 0, &["set_limit("][..]),
        ("app.pl", 0, &["app.players.count()"]),
        ("1 + app.pl", 4, &["app.players.count()"]),
        ("conf", 0, &["config"]),
        ("slo", 0, &["slow"]),
        ("[ta", 1, &["tasks()"]),
        ("tasks().fil", 8, &["filter("]),
        ("tasks().filter(|t| t.na", 21, &["name"]),
        ("tasks().filter(|t| t.st", 21, &["starts_with(", "state"]),
        ("where(17).st", 10, &["starts_with(", "state"]),
        ("peers().map(|p| tasks().len() + p.s", 34, &["some(", "split(", "starts_with(", "state", "sub_string("]),
        ("slow[0].ag", 8, &["age"]),
        ("slow.ma", 5, &["map("]),
        ("config.por", 7, &[]),
        ("tasks().filter(|task| ta", 22, &["tasks()", "task"]),
        ("tasks().filter(|t| t.name == \"ta", 32, &[]),
        ("f(1.", 4, &[]),
    ] {
        expect(&it, line, start, found);
    }
    it.goes_on_from("tasks().filter(|t|");
    expect(&it, "  t.na", 4, &["name"]);
    it.goes_on_from("");
}

#[test]
fn without_json_the_text_tells_the_functions() {
    let all: Vec<_> = [
        "set_limit(clients: int)  act    how many there may be",
        "config                   read   value: what it was started with",
        "_ is the last result; let x = … is there in later lines",
    ]
    .into_iter()
    .filter_map(callable)
    .map(|it| (it.name, it.kind, it.doc))
    .collect();
    let of = |name: &str, kind: &str, doc: &str| (name.to_owned(), kind.to_owned(), doc.to_owned());
    assert_eq!(
        all,
        [of("set_limit", "function", "how many there may be"), of("config", "value", "what it was started with")]
    );
}

#[test]
fn a_line_of_where_all_gives_id_and_name() {
    let task = |line: &str| parse(line).map(|task| (task.id, task.name, task.state));
    let of = |id: &str, name: &str, state: &str| Some((id.to_owned(), name.to_owned(), state.to_owned()));
    assert_eq!(task("#17 parked 3.2s \"db \\\"w\\\"\" lock \"x\" [a|1]"), of("17", "db \\\"w\\\"", "parked"));
    assert_eq!(task("#1 parked 3.2s lock \"pool\" src/db.rs:31"), of("1", "", "parked"));
    assert_eq!(task("#4 running on worker 3 for 3.2 s \"hog\" [a|1]"), of("4", "hog", "running"));
    assert_eq!(task("#5 unstarted 2ms \"x\""), of("5", "x", "unstarted"));
    assert_eq!(task("24 tasks: 24 parked"), None);
}
