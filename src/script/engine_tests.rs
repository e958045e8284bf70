//! Tests of the engine: its limits, one by one, and what is deep.

#![forbid(unsafe_code)]

use super::super::limits::LEAST_STACK;
use super::*;

fn evaluate(typed: &str, limits: Limits, kept: &mut Kept) -> (Outcome, Duration) {
    let control = Arc::new(Control::new());
    let permit: Permit = Arc::new(|_, _, _| Ok(()));
    let asked = Arc::new(Asked { typed: typed.into(), permit, control, limits, in_repl: false });
    let begun = Instant::now();
    (asked.evaluate(&Packages::new(), kept), begun.elapsed())
}

fn failure(typed: &str, limits: Limits) -> String {
    match evaluate(typed, limits, &mut Kept::default()).0 {
        Outcome::Failed(text) => text,
        other => panic!("{typed}: {other:?}"),
    }
}

fn value(typed: &str, limits: Limits) -> Value {
    match evaluate(typed, limits, &mut Kept::default()).0 {
        Outcome::Value(value, _) => value,
        other => panic!("{typed}: {other:?}"),
    }
}

/// Whatever goes through a value by recursion finds room for the deepest one that there can be.
#[test]
fn deep_values_find_room_on_the_stack() {
    // What takes time is to build them, by the square of their depth.
    const STACK: usize = LEAST_STACK / 8;
    let run = || {
        let limits = Limits { time: Duration::from_secs(60), ..Limits::new(STACK) };
        let half = limits.map - 1;
        let lists = limits.list - 2;
        for (attack, fails) in [
            ("let a = []; loop { let b = []; b.push(a); a = b; }".to_owned(), true),
            ("let a = 0; loop { a = #{a: a}; }".to_owned(), true),
            // As deep as it may be, then everything that there is done to it.
            (
                format!(
                    "let a = []; for i in 0..{lists} {{ let b = []; b.push(a); a = b; }} \
                     let c = a; print(a); debug(c); let s = `${{a}}`; s += a; a.to_string(); type_of(a); switch a {{ 1 => 2, _ => 3 }} c = (); a"
                ),
                false,
            ),
            (
                format!(
                    "let a = 0; for i in 0..{half} {{ a = #{{a: a}}; }} let c = a; print(a); a.to_json(); switch a {{ 1 => 2, _ => 3 }} c = (); a"
                ),
                false,
            ),
            (format!("let a = []; for i in 0..{lists} {{ let b = []; b.push(a); a = b; }} a in [a, a]"), true),
            (format!("let a = []; for i in 0..{lists} {{ let b = []; b.push(a); a = b; }} throw a"), true),
            ("let f = || 0; loop { let g = f; f = || g; }".to_owned(), true),
            ("let a = []; let f = || a; a.push(f); print(a); debug(a); let c = a; `${a} ${f}`; a".to_owned(), false),
            (
                "fn f(n) { let a = [[[[[[[[n]]]]]]]]; f(((((((n + 1))))))) + a[0][0][0][0][0][0][0][0] } f(0)"
                    .to_owned(),
                true,
            ),
        ] {
            let (outcome, took) = evaluate(&attack, limits, &mut Kept::default());
            eprintln!("{attack:.50}: {took:?}: {:.100}", format!("{outcome:?}"));
            // Some of it is refused, because what it makes is too large; that is no less safe.
            assert!(!fails || matches!(outcome, Outcome::Failed(_)), "{attack}: {:.200}", format!("{outcome:?}"));
        }
    };
    let thread = std::thread::Builder::new().stack_size(STACK).spawn(run).expect("a thread");
    thread.join().expect("all of it");
}

#[test]
fn limits_hold_to_the_last_one() {
    let limits =
        Limits { list: 50, map: 20, text: 100, calls: 10, variables: 8, functions: 2, ..Limits::new(LEAST_STACK) };
    let all = [
        ("let a = []; a.pad(N, 0); a.len()", 50),
        ("let s = \"\"; s.pad(N, 'x'); s.len()", 100),
        ("let m = #{}; for i in 0..N { m[i.to_string()] = 0 } m.len()", 20),
    ];
    for (attack, most) in all {
        assert_eq!(value(&attack.replace('N', &most.to_string()), limits), Value::Int(most), "{attack}");
        let text = failure(&attack.replace('N', &(most + 1).to_string()), limits);
        assert!(text.contains("too large: a value has at most 50 elements, 20 entries"), "{text}");
    }
    let calls = "fn f(n) { if n <= 1 { 1 } else { 1 + f(n - 1) } } f(N)";
    let deepest = (1..20)
        .take_while(|n| {
            matches!(evaluate(&calls.replace('N', &n.to_string()), limits, &mut Kept::default()).0, Outcome::Value(..))
        })
        .count();
    assert!((9..=11).contains(&deepest), "{deepest}");
    assert!(failure("loop {}", Limits { operations: 100, ..limits }).contains("at most 100"));
    assert!(failure("fn a() {} fn b() {} fn c() {} 1", limits).contains("Syntax error"));
    let steps = Limits { operations: u64::MAX, time: Duration::from_millis(50), ..limits };
    assert_eq!(failure("loop {}", steps), "it took too long: an expression may compute for 0 s (column 6)");
}

#[test]
fn sleep_is_no_computing_and_can_be_abandoned() {
    let limits = Limits { time: Duration::from_millis(500), ..Limits::new(LEAST_STACK) };
    assert_eq!(value("sleep(0.6); for i in 0..100 {} 1", limits), Value::Int(1));
    let control = Arc::new(Control::new());
    let asked = Arc::new(Asked {
        typed: "sleep(1000); loop {}".into(),
        permit: Arc::new(|_, _, _| Ok(())),
        control: control.clone(),
        limits,
        in_repl: false,
    });
    let thread = std::thread::spawn(move || asked.evaluate(&Packages::new(), &mut Kept::default()));
    while control.phase().is_none() {
        std::thread::yield_now();
    }
    control.abandon();
    let outcome = thread.join().expect("an outcome");
    control.finish(Outcome::Unknown);
    assert!(matches!(outcome, Outcome::Failed(text) if text.starts_with("abandoned")));
}

#[test]
fn what_is_kept_is_plain_and_has_bounds() {
    let (limits, mut kept) = (Limits::new(LEAST_STACK), Kept::default());
    let mut notes = |typed: &str| match evaluate(typed, limits, &mut kept).0 {
        Outcome::Value(_, notes) => notes,
        other => panic!("{typed}: {other:?}"),
    };
    assert_eq!(notes("let a = 1; let a = [a]; const C = 2; 'x'"), [""; 0]);
    assert_eq!(notes("let f = |x| x; let m = #{a: [f]}; 1").len(), 2);
    let many: String = (0..40).map(|i| format!("let v{i} = {i};")).collect();
    assert_eq!(notes(&many).len(), 10);
    let names: Vec<&str> = kept.variables.iter().map(|(name, ..)| name.as_str()).collect();
    assert_eq!((names.len(), names.last()), (MOST_VARIABLES, Some(&"v39")));
    assert_eq!(kept.last, Value::Int(1));
}
