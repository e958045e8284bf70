//! Tests of the engine: its limits, one by one, and what is deep.

#![forbid(unsafe_code)]

use super::super::limits::LEAST_STACK;
use super::*;

fn evaluate(typed: &str, limits: Limits, kept: &mut Kept) -> (Outcome, Duration) {
    let control = Arc::new(Control::new());
    let permit: Permit = Arc::new(|_, _, _, _| Ok(()));
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
    assert_eq!(failure("loop {}", steps), "it took too long: an expression may compute for 0.05 s (column 6)");
}

#[test]
fn sleep_is_no_computing_and_can_be_abandoned() {
    let limits = Limits { time: Duration::from_millis(500), ..Limits::new(LEAST_STACK) };
    assert_eq!(value("sleep(0.6); for i in 0..100 {} 1", limits), Value::Int(1));
    let control = Arc::new(Control::new());
    let asked = Arc::new(Asked {
        typed: "sleep(50); loop {}".into(),
        permit: Arc::new(|_, _, _, _| Ok(())),
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

/// The engine looks at sizes when a function has returned, and counts no steps within.
#[test]
fn no_single_function_makes_more_than_there_may_be() {
    let limits = Limits { text: 1_000_000, ..Limits::new(512 << 20) };
    let begun = Instant::now();
    for (attack, why) in [
        ("let s = \"\"; s.pad(40000, 'a'); s.replace(\"a\", s); 1", "Length of string"),
        ("let s = \"\"; s.pad(40000, 'a'); s.replace('a', s); 1", "Length of string"),
        ("let s = \"\"; s.pad(500000, 'a'); s.replace(\"\", \"bb\"); 1", "Length of string"),
        ("let s = \"\"; s.pad(500001, 'a'); s.replace('a', 'ü'); 1", "Length of string"),
        ("let s = \"\"; s.pad(500001, 'a'); s.replace(\"a\", 'ü'); 1", "Length of string"),
        ("let s = \"x\"; s.pad(9, \"\"); 1", "nothing to fill up with"),
        ("let s = \"\"; s.pad(600000, \"ü\"); 1", "Length of string"),
        ("let s = \"\"; s.pad(9223372036854775807, 'x'); 1", "Length of string"),
        ("let a = []; a.pad(4611686018427387904, [0, 0, 0]); 1", "Size of array"),
        ("let a = []; a.pad(100001, 0); 1", "Size of array"),
        ("let a = []; a.pad(99999, [1]); 1", "Size of array"),
        ("let a = []; a.pad(10001, #{a: 1, b: 2}); 1", "Size of object map"),
        ("let s = \"\"; s.pad(1000, 'x'); let a = []; a.pad(5000, s); 1", "Length of string"),
        ("let s = \"\"; s.pad(500000, 'a'); s.split(\"\"); 1", "Size of array"),
        ("let s = \"\"; s.pad(500000, 'a'); s.split('a'); 1", "Size of array"),
        ("let s = \"\"; s.pad(500000, 'a'); s.split_rev('a', 9999999); 1", "Size of array"),
        ("let s = \"\"; s.pad(500000, \"a \"); s.split(); 1", "Size of array"),
        ("let s = \"\"; s.pad(500000, 'a'); s.to_chars(); 1", "Size of array"),
        ("let s = \"\"; s.pad(1000000, '\\\\'); #{a: s}.to_json()", "to_json: too long"),
        ("sleep(61)", "sleep: an expression may sleep for 60 s in all"),
        ("sleep(1e300)", "sleep: an expression may sleep for 60 s in all"),
        ("sleep(9223372036854775807)", "sleep: an expression may sleep for 60 s in all"),
        ("parse_json(\"[tasks()]\")", "parse_json: no value, at byte 1"),
        ("Fn(\"parse_json\").call(\"tasks()\")", "parse_json: no value, at byte 0"),
        ("[\"tasks()\"].map(Fn(\"parse_json\"))", "parse_json: no value, at byte 0"),
        ("[1, \"a\"].sort()", "string and i64 have no order"),
        ("let s = \"\"; s.pad(300000, 'x'); throw s", "… (300000 bytes)"),
    ] {
        let began = Instant::now();
        let text = failure(attack, limits);
        eprintln!("{attack:.60}: {:?}", began.elapsed());
        assert!(text.contains(why), "{attack}: {text:.200}");
        assert!(text.len() < LONGEST_REASON + 100, "{attack}: {}", text.len());
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[test]
fn what_was_replaced_does_what_it_did() {
    let limits = Limits::new(LEAST_STACK);
    for (typed, result) in [
        (
            "let s = \"abab\"; s.replace(\"b\", \"cd\"); s.replace('a', 'x'); s.replace('c', \"\"); s.replace(\"x\", 'y'); s",
            "\"ydyd\"",
        ),
        (
            "let s = \"ab\"; s.replace(\"x\", \"y\"); s.pad(1, 'c'); s.pad(7, \"üx\"); s.pad(8, '!'); s.pad(-1, \"\"); s",
            "\"abüxüxü!\"",
        ),
        (
            "[\"a,b,c\".split(\",\"), \"a,b,c\".split(',', 2), \"a b\".split(), \"\".split(\",\"), \"abc\".split(1), \"ab\".to_chars()]",
            "[[\"a\", \"b\", \"c\"], [\"a\", \"b,c\"], [\"a\", \"b\"], [\"\"], [\"a\", \"bc\"], [\"a\", \"b\"]]",
        ),
        (
            "[\"a,b,c\".split_rev(\",\"), \"a,b,c\".split_rev(\",\", 2), \"a,b\".split(\",\", 0), \"a,b\".split(\",\", 1)]",
            "[[\"c\", \"b\", \"a\"], [\"c\", \"a,b\"], [\"a,b\"], [\"a,b\"]]",
        ),
        ("let a = [1]; a.pad(3, \"x\"); a.pad(1, 0); a.pad(-1, 0); a", "[1, \"x\", \"x\"]"),
        (
            "const A = [1, 2, [3], 1]; [A.contains([3]), 2 in A, A.contains(\"x\"), A.index_of(1, 1), A.index_of(1, -2), A.index_of(9), A == [1], A.to_string()]",
            "[true, true, false, 3, 3, -1, false, \"[1, 2, [3], 1]\"]",
        ),
        ("let a = [1, 2]; [a.index_of(|x| x == 2), a.find(|x| x > 1)]", "[1, 2]"),
        (
            "let a = [3, 1.5, 2]; a.sort(); let b = [\"b\", \"a\"]; b.sort_desc(); let c = [#{n: 2, s: 'x'}, #{n: 1}, #{n: 2, s: 'y'}]; [a, b, c.order(|x, y| x.n - y.n).map(|x| x.s), c.order_by(|x, y| x.n > y.n).len()]",
            "[[1.5, 2, 3], [\"b\", \"a\"], [(), \"x\", \"y\"], 3]",
        ),
        (
            "let a = [3, 1, 2]; a.sort(|x, y| y.to_float() - x.to_float()); fn up(x, y) { x - y } let b = [2, 1]; b.sort(\"up\"); let c = [2, 1]; c.sort_by(up); [a, b, c, [2, 3, 1].order_desc(), [0.0/0.0, 1.0].order()[0]]",
            "[[3, 2, 1], [1, 2], [1, 2], [3, 2, 1], 1.0]",
        ),
        ("parse_json(\"{\\\"a\\\": [1, 2.5, null, \\\"x\\\"]}\")", "#{a: [1, 2.5, (), \"x\"]}"),
        ("#{a: 1}.to_json()", "\"{\\\"a\\\":1}\""),
    ] {
        assert_eq!(show::literal(&value(typed, limits), 1000), result, "{typed}");
    }
}

#[test]
fn closures_within_functions_are_counted() {
    let limits = Limits { operations: 4_000, ..Limits::new(LEAST_STACK) };
    let begin = "let a = []; a.pad(400, 0); let m = #{}; for i in 0..20 { m[`${i}`] = i }";
    for attack in [
        "for i in 0..20 { a.map(|x| x + 1 + 1 + 1) }",
        "for i in 0..20 { a.filter(|x| x + 1 + 1 == 1) }",
        "for i in 0..20 { a.for_each(|| this + 1 + 1) }",
        "for i in 0..20 { a.sort(|x, y| x - y) }",
        "for i in 0..20 { a.dedup(|x, y| x + y == 1) }",
        "for i in 0..20 { a.reduce(|s, x| x + 1 + 1) }",
        "for i in 0..20 { a.zip(a, |x, y| x + y + 1) }",
        "for i in 0..20 { a.drain(|x| x + 1 == 2) }",
        "for i in 0..20 { a.find(|x| x + 1 == 2) }",
        "for i in 0..200 { m.map(|x, k| x + 1 == 2) }",
        "for i in 0..200 { m.filter(|x, k| x + 1 == 2) }",
        "for i in 0..200 { m.drain(|x, k| x + 1 == 2) }",
        // Alone, so that nothing comes behind what swallows errors.
        "a.pad(700, 0); a.sort(|x, y| x - y)",
        "a.pad(700, 0); a.dedup(|x, y| x + y + 1 + 1 + 1 == 1)",
        "while true {}",
        "do {} until false;",
        "do {} while true;",
        "for i in 0..9223372036854775807 {}",
        "for i in range(0.0, 1.0, 1e-9) {}",
        "try { loop { try { a.map(|x| x) } catch { } } } catch { }",
    ] {
        let (outcome, took) = evaluate(&format!("{begin} {attack}"), limits, &mut Kept::default());
        eprintln!("{attack:.60}: {took:?}");
        let Outcome::Failed(text) = outcome else { panic!("{attack}: {outcome:?}") };
        assert!(text.contains("at most 4000") && took < Duration::from_secs(5), "{attack}: {text} {took:?}");
    }
}

/// What sorts by the rules of a comparison may find that there are none.
#[test]
fn a_comparison_that_contradicts_itself_panics_nowhere() {
    static PANICS: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    thread_local!(static HERE: std::cell::Cell<bool> = const { std::cell::Cell::new(false) });
    HERE.set(true);
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if HERE.get() {
            PANICS.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
        before(info);
    }));
    let limits = Limits::new(LEAST_STACK);
    for sort in [
        "a.sort(|x, y| -1)",
        "a.sort(|x, y| 1)",
        "a.sort(|x, y| (x * 7919 + y * 104729) % 3 - 1)",
        "a.order_by(|x, y| (x + y) % 2 == 0)",
        "a.sort_by(|x, y| (x ^ y) % 2.0)",
    ] {
        let typed = format!("let a = []; for i in 0..300 {{ a.push(i * 7 % 31) }} {sort}; a.len()");
        assert_eq!(value(&typed, limits), Value::Int(300), "{sort}");
    }
    HERE.set(false);
    assert_eq!(PANICS.load(std::sync::atomic::Ordering::SeqCst), 0);
    assert!(failure("[2, 1].sort(|x, y| \"x\")", limits).contains("has to give a number"));
}

/// A chain of closures is freed one after the other, on a stack that has no room for all.
#[test]
fn closures_that_hold_closures_need_no_stack() {
    let run = || {
        let limits = Limits { time: Duration::from_secs(60), ..Limits::new(512 << 20) };
        for attack in [
            "let f = || 0; let a = []; a.pad(1000, 0); for i in 0..8 { a.for_each(|| { let g = f; f = || g; }) }",
            "let f = || 0; for i in 0..8000 { let g = f; f = || g; } 1",
            "let f = || 0; for i in 0..8000 { let g = f; f = || g; } f",
            "let f = || 0; for i in 0..8000 { let g = f; f = || g; } throw f",
            "let f = || 0; let all = []; for i in 0..4000 { let g = #{a: [f]}; f = || g; all.push(f) } all.clear(); f = (); 1",
        ] {
            let (outcome, took) = evaluate(attack, limits, &mut Kept::default());
            eprintln!("{attack:.60}: {took:?}: {:.100}", format!("{outcome:?}"));
        }
    };
    let thread = std::thread::Builder::new().stack_size(1 << 20).spawn(run).expect("a thread");
    thread.join().expect("all of it");
}

#[cfg(all(target_os = "linux", not(miri)))]
mod memory {
    use super::*;
    use crate::sys::usage;

    /// One after the other: they look at the memory of the whole process.
    static TURN: Mutex<()> = Mutex::new(());

    #[test]
    fn what_is_bounded_by_the_piece_is_bounded_in_all() {
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let limits = Limits { memory: 48 << 20, ..Limits::new(512 << 20) };
        for attack in [
            "let s = \"\"; s.pad(250000, \"x\"); let all = []; loop { let t = s + \"y\"; all.push(|| t) }",
            "let a = []; a.pad(100000, 0); a.map(|x| { let t = \"\"; t.pad(250000, 'x'); t })",
            "let s = \"\"; s.pad(250000, 'x'); let a = []; a.pad(100000, 0); a.filter(|x| { let t = s + \"y\"; let g = || t; false })",
            "let s = \"\"; s.pad(250000, 'x'); loop { let t = s + \"y\"; let a = [t]; let f = || a; a = [t, f]; }",
        ] {
            let before = usage::resident();
            let text = failure(attack, limits);
            assert!(text.contains("too much memory: the process may grow by 48 MiB"), "{attack}: {text}");
            // Other tests of this process take memory, too.
            let more = usage::resident().saturating_sub(before) >> 20;
            assert!(more < 400, "{attack}: {more} MiB");
        }
    }

    #[test]
    fn what_holds_itself_is_freed() {
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let limits = Limits::new(512 << 20);
        // The engine itself sees `a.push(f)`, and refuses it.
        let cycles = "let s = \"\"; s.pad(100000, 'x'); for i in 0..5 { let t = s + i; let a = [t]; let f = || a; a[0] = f; \
                      let u = s + i; let m = #{a: u}; let g = || m; m.b = g; let h = []; let k = || h; h = [s + i, k]; }";
        let mut first = 0;
        for n in 0..200 {
            assert_eq!(value(cycles, limits), Value::Nothing);
            if n == 20 {
                first = usage::resident();
            }
        }
        // 260 MB, if nothing were freed.
        let more = usage::resident().saturating_sub(first) >> 20;
        assert!(more < 64, "{more} MiB");
    }
}
