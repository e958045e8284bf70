//! Functions and statics that the program exports by an attribute, and names with dots, over a real backdoor.
#![cfg(all(feature = "macros", feature = "script", unix, not(miri)))]

mod util;

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use coro::console::{self, Function, Tier, Value};
use util::sockets::Directory;
use util::until;

/// Only what fails takes this long, and a machine that is very busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a session answers to these lines, sent at once.
#[track_caller]
fn said(lines: &str) -> String {
    static SOCKET: OnceLock<(PathBuf, Directory)> = OnceLock::new();
    let (path, _) = SOCKET.get_or_init(|| {
        coro::spawn(|| ()).join().expect("a runtime");
        let directory = Directory::new();
        let path = directory.at("b.sock");
        // It serves until the end of the program.
        drop(coro::backdoor::serve(&path).expect("served"));
        (path, directory)
    });
    let mut stream = UnixStream::connect(path).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(lines.as_bytes()).and_then(|()| stream.write_all(b"\n")).expect("sent");
    stream.shutdown(Shutdown::Write).expect("shut down");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    let (_, answer) = answer.split_once('\n').expect("a banner");
    // On a busy machine it may say that it is not done yet.
    answer.split_inclusive('\n').filter(|line| !line.starts_with("… after ")).collect()
}

/// The lines of `functions` that begin so.
fn listed(prefix: &str) -> Vec<String> {
    let list = said("functions");
    list.lines().filter(|l| l.starts_with(prefix)).map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

/// What a program may look like: nobody calls any of it, and none of it is public.
mod program {
    #![forbid(unsafe_code)]

    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{LazyLock, Mutex};

    /// Adds up
    /// two numbers.
    ///
    /// Not more.
    #[coro::export(tier = "read")]
    fn exported_sum(first: i64, _second: Option<i64>) -> i64 {
        first + _second.unwrap_or(100)
    }

    #[coro::export]
    fn exported_reset(r#type: String) -> Result<usize, String> {
        match r#type.as_str() {
            "all" => Ok(EXPORTED_LIMIT.swap(0, Ordering::Relaxed)),
            other => Err(format!("there is no {other}")),
        }
    }

    /// How many there may be.
    #[coro::export]
    pub(super) static EXPORTED_LIMIT: AtomicUsize = AtomicUsize::new(7);

    #[coro::export(name = "exported_table")]
    static TABLE: LazyLock<Mutex<BTreeMap<&'static str, u8>>> =
        LazyLock::new(|| Mutex::new(BTreeMap::from([("one", 1), ("two", 2)])));

    #[coro::export(value, name = "exported_place", on_worker)]
    fn place() -> Option<String> {
        coro::current_name()
    }

    #[coro::export(worker = 0, tier = "probe")]
    fn exported_worker() -> Option<usize> {
        coro::current_worker()
    }

    #[cfg(any())]
    #[coro::export]
    fn exported_never() -> NoSuchType {}

    #[coro::export]
    #[cfg(any())]
    fn exported_never_either() -> NoSuchType {}

    /// By another path than `coro`, and from within a function.
    pub(super) fn unused() {
        mod renamed {
            pub(crate) use coro::{__private, console};
        }
        #[coro::export(crate = renamed, tier = "read")]
        fn exported_inside() -> &'static str {
            "inside"
        }
    }
}

#[test]
fn what_the_program_exports_is_listed_without_a_call() {
    // Nothing that exports is called, here or elsewhere.
    let _: fn() = program::unused;
    assert_eq!(
        listed("exported_"),
        [
            "exported_inside() read",
            "exported_place read value:",
            "exported_reset(type: text) act",
            "exported_sum(first: int, second: int) read Adds up two numbers.",
            "exported_table read value:",
            "exported_worker() probe",
        ]
    );
    assert_eq!(listed("EXPORTED_"), ["EXPORTED_LIMIT read value: How many there may be."]);
}

#[test]
fn exported_functions_are_called_with_their_tier_and_in_their_place() {
    assert_eq!(said("exported_sum(1, 2) + exported_sum(1, ())"), "104\n");
    assert_eq!(said("exported_sum(\"x\", 1)"), "exported_sum: argument 1 has to be int, and is text (column 1)\n");
    assert_eq!(said("exported_inside()"), "inside\n");
    assert_eq!(said("exported_place"), "console exported_place\n");
    assert_eq!(
        said("exported_worker()\nenable probe\nexported_worker()"),
        "exported_worker needs the tier probe: write first: enable probe (column 1)\nthis session may now probe\n0\n"
    );
    assert_eq!(
        said("enable act\nexported_reset(\"x\")").lines().nth(1),
        Some("exported_reset: there is no x (column 1)")
    );
}

#[test]
fn exported_statics_are_read() {
    assert_eq!(said("EXPORTED_LIMIT"), "7\n");
    program::EXPORTED_LIMIT.store(8, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(said("EXPORTED_LIMIT * 2"), "16\n");
    assert_eq!(said("exported_table.two\nexported_table"), "2\none  1\ntwo  2\n");
    assert!(said("EXPORTED_LIMIT = 9").contains("constant"), "{}", said("EXPORTED_LIMIT = 9"));
    assert!(said("EXPORTED_LIMIT()").starts_with("Function not found: EXPORTED_LIMIT ()"));
}

#[coro::export(tier = "read")]
fn replaced_later() -> u8 {
    1
}

#[coro::export(tier = "read")]
fn taken_away() -> u8 {
    1
}

#[test]
fn what_is_registered_later_counts() {
    Function::new("replaced_later", || 2).tier(Tier::Read).register();
    assert_eq!(said("replaced_later()"), "2\n");
    assert!(console::unregister("taken_away"));
    assert!(said("taken_away() + 0").starts_with("Function not found: taken_away ()"));
}

mod dotted {
    /// How many play.
    #[coro::export(name = "app.players.count", tier = "read")]
    fn count() -> usize {
        2
    }

    /// Ends a player's game.
    #[coro::export(name = "app.players.kick")]
    fn kick(name: String, why: Option<String>) -> String {
        format!("{name} goes: {}", why.unwrap_or_default())
    }
}

/// Registered by one test for all.
fn register() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        console::register_value("app.players", "who plays", || vec!["ada", "bea"]);
        console::register_value("app.limits", "", || Value::map([("players", Value::of(10))]));
        console::register_value("setup", "what the program was started with", || {
            Value::map([("port", Value::of(9000))])
        });
        Function::new("setup.reload", |deep: bool| if deep { 2 } else { 1 }).tier(Tier::Read).register();
    });
}

#[test]
fn names_with_dots_are_called_and_read() {
    register();
    for (line, answer) in [
        ("app.players.count()", "2\n"),
        ("app.players", "ada\nbea\n"),
        ("app.players.len() + app.players.count() + app.players.count()", "6\n"),
        ("app . players . count ( )", "2\n"),
        ("app?.players?.count()", "2\n"),
        ("[10, 20].map(|n| n + app.players.count())", "12\n22\n"),
        ("`${app.players.count()} ${app.players[1]}`", "2 bea\n"),
        ("fn f(x) { x.players.count() } f(app)", "2\n"),
        ("let p = app.players; p.filter(|name| name > \"b\")", "bea\n"),
        ("app[\"players\"]\napp.limits.players", "ada\nbea\n10\n"),
        ("1; /* ü */ app.players.count()\n_ + 1; _ + app.players.count()", "2\n4\n"),
        ("setup\nsetup.port\nsetup.reload(true)\nsetup.port + setup.reload(false)", "port  9000\n9000\n2\n9001\n"),
        // A variable of the expression comes first.
        ("let app = #{players: 5}; app.players", "5\n"),
        ("let app = #{players: 5}\napp.players + 1\nlet app = 1\napp", "6\n1\n"),
    ] {
        assert_eq!(said(line), answer, "{line}");
    }
    assert_eq!(
        said("app.players.kick(\"ada\", ())\nenable act\napp.players.kick(\"ada\", \"late\")"),
        "app.players.kick needs the tier act: write first: enable act (column 13)\nthis session may now act\nada goes: late\n"
    );
}

#[test]
fn what_is_below_a_name_is_listed() {
    register();
    assert_eq!(
        said("app"),
        "limits                               read   value:\n\
         players                              read   value: who plays\n\
         players.count()                      read   How many play.\n\
         players.kick(name: text, why: text)  act    Ends a player's game.\n"
    );
    assert!(
        said("print(app)").starts_with("#{\"limits\": ") || said("print(app)").starts_with("#{limits: "),
        "{}",
        said("print(app)")
    );
    assert_eq!(listed("app.").len(), 4, "{:?}", listed("app."));
    assert_eq!(listed("app.players.count"), ["app.players.count() read How many play."]);
}

#[test]
fn what_is_not_there_is_told_by_its_whole_name() {
    register();
    for (line, told) in [
        ("app.games", "nothing is called app.games; functions lists what is (column 4)\n"),
        ("app.count()", "nothing is called app.count; functions lists what is (column 5)\n"),
        ("app.players.count", "app.players.count is a function: write app.players.count() (column 13)\n"),
        (
            "app.players.kick(1)",
            "Function not found: kick (names, i64); it is app.players.kick(name: text, why: text) (column 13)\n",
        ),
        ("setup.reload()", "Function not found: reload (names); it is setup.reload(bool) (column 7)\n"),
        ("app.players.cuont()", "Function not found: cuont (array); functions lists them (column 13)\n"),
        ("app.cuont()", "Function not found: cuont (names); functions lists them (column 5)\n"),
        ("app.limits.other == ()", "true\n"),
    ] {
        assert_eq!(said(line), told, "{line}");
    }
    let refused = std::panic::catch_unwind(|| console::register("app.if.x", "", || ()));
    assert!(refused.is_err());
}

#[test]
fn tasks_and_lists_are_counted() {
    let stop = std::sync::Arc::new(coro::sync::Event::new());
    let tasks: Vec<_> = (0..3)
        .map(|n| {
            let stop = stop.clone();
            coro::Builder::new()
                .name(format!("counted {n}"))
                .class("counted")
                .spawn(move || stop.wait())
                .expect("a task")
        })
        .collect();
    let parked = "tasks().filter(|t| t.class == \"counted\" && t.state == \"parked\")";
    until(PATIENCE, "three parked tasks", || said(&format!("{parked}.len()")) == "3\n");
    assert_eq!(said(&format!("{parked}.count()\n[1, 2].count()\ntasks().count() >= 3")), "3\n2\ntrue\n");
    stop.set();
    tasks.into_iter().for_each(|task| task.join().expect("a task"));
}
