//! What parked tasks wait for, in the words that people read; and the objects and peers that have the most waiters.
//!
//! Masked: ids and numbers of threads (`N`), times (`T`), lines of this file (`L`), ports (`P`).

mod util;

use std::sync::Arc;
use std::sync::mpsc as std_mpsc;
use std::time::Duration;

use coro::inspect::{Object, Options, Party, Snapshot};
use coro::net::{TcpListener, TcpStream};
use coro::sync::{Barrier, Condvar, Event, Mutex, Once, RwLock, Semaphore, WaitGroup, mpmc, mpsc, oneshot};
use coro::{Builder, JoinHandle};
use util::{until, within};

const LIMIT: Duration = Duration::from_secs(20);
const LONG: Duration = Duration::from_secs(3600);

fn in_task(f: impl FnOnce() + Send + 'static) {
    within(LIMIT, || {
        let rt = util::runtime(2);
        rt.spawn(f).join().unwrap_or_else(|payload| std::panic::resume_unwind(payload));
    });
}

fn spawn<T: Send + 'static>(name: &str, f: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    Builder::new().name(name).spawn(f).expect("a task")
}

/// Digits become the letter that stands for what they are.
fn masked(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        let before = &rest[..at];
        out.push_str(before);
        rest = &rest[at..];
        if let Some(host) = rest.strip_prefix("127.0.0.1") {
            out.push_str("127.0.0.1");
            rest = host;
            continue;
        }
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number = &rest[..end];
        rest = &rest[end..];
        let unit = ["ns", "us", "ms", "s", "m", "h"]
            .into_iter()
            .find(|unit| rest.strip_prefix(unit).is_some_and(|r| !r.starts_with(|c: char| c.is_alphanumeric())));
        // Longer ones have two parts: `1h00m`.
        let two =
            rest.strip_prefix('h').and_then(|r| r.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix('m'));
        if before.ends_with("127.0.0.1:") || out.ends_with("127.0.0.1:") {
            out.push('P');
        } else if before.ends_with(".rs:") {
            out.push('L');
        } else if before.ends_with('#') || ["thread ", "fd ", "backlog "].iter().any(|w| before.ends_with(w)) {
            out.push('N');
        } else if let Some(two) = two {
            out.push('T');
            rest = two;
        } else if let Some(unit) = unit {
            out.push('T');
            rest = &rest[unit.len()..];
        } else {
            out.push_str(number);
        }
    }
    out + rest
}

/// Comes back once the task waits like that.
#[track_caller]
fn waits<T>(task: &JoinHandle<T>, expected: &str) {
    let mut last = String::new();
    let end = std::time::Instant::now() + LIMIT / 4;
    while std::time::Instant::now() < end {
        last = coro::where_is(task.id()).map(|t| masked(&t.wait)).unwrap_or_default();
        if last == expected {
            return;
        }
        coro::sleep(Duration::from_millis(1));
    }
    assert_eq!(last, expected);
}

fn end<T>(tasks: impl IntoIterator<Item = JoinHandle<T>>) {
    for task in tasks {
        let _ = task.task().cancel_now();
        drop(task.join());
    }
}

#[test]
fn sockets_say_both_ends() {
    in_task(|| {
        let listener = Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
        let address = listener.local_addr().unwrap();
        let client = TcpStream::connect(address).unwrap();
        let server = Arc::new(listener.accept().unwrap().0);
        let accepts = spawn("server", move || drop(listener.accept()));
        waits(&accepts, "accept fd N 127.0.0.1:P (backlog N)");
        let reads = spawn("reader", {
            let server = server.clone();
            move || {
                use std::io::Read;
                let _ = (&*server).read(&mut [0; 1]);
            }
        });
        waits(&reads, "read fd N 127.0.0.1:P → 127.0.0.1:P");
        let writes = spawn("writer", move || {
            use std::io::Write;
            while (&client).write(&[0; 65536]).is_ok() {}
        });
        waits(&writes, "write fd N 127.0.0.1:P → 127.0.0.1:P");
        // The reader has its byte and goes, the writer has filled what there is.
        drop(reads.join());
        let peer = coro::inspect::peers().into_iter().find(|p| p.peer == "127.0.0.1").unwrap();
        assert_eq!((peer.waiting, peer.oldest_wait.is_some()), (1, true));
        end([accepts, writes]);
    });
}

#[test]
fn locks_say_who_holds_them_and_for_how_long() {
    in_task(|| {
        let lock = Arc::new(Mutex::new(()).named("db pool"));
        let table = Arc::new(RwLock::new(()).named("table"));
        let holder = spawn("db writer", {
            let (lock, table) = (lock.clone(), table.clone());
            move || {
                let (_lock, _table) = (lock.lock(), table.write());
                coro::sleep(LONG);
            }
        });
        waits(&holder, "sleep T left");
        let one = spawn("one", {
            let lock = lock.clone();
            move || drop(lock.lock())
        });
        waits(&one, "lock \"db pool\" tests/waits.rs:L held by #N \"db writer\" for T");
        let two = spawn("two", {
            let table = table.clone();
            move || drop(table.read())
        });
        waits(&two, "read lock \"table\" tests/waits.rs:L held by #N \"db writer\" for T");
        let three = spawn("three", {
            let table = table.clone();
            move || drop(table.write())
        });
        waits(&three, "write lock \"table\" tests/waits.rs:L held by #N \"db writer\" for T");
        end([holder, one, two, three]);

        let reader = |name: &str| {
            let table = table.clone();
            let reader = spawn(name, move || {
                let _table = table.read();
                coro::sleep(LONG);
            });
            waits(&reader, "sleep T left");
            reader
        };
        let first = reader("reader");
        let writer = {
            let table = table.clone();
            move || spawn("writer", move || drop(table.write()))
        };
        let waiting = writer.clone()();
        waits(&waiting, "write lock \"table\" tests/waits.rs:L read-held by #N \"reader\"");
        end([waiting]);
        let second = reader("another");
        let waiting = writer();
        waits(&waiting, "write lock \"table\" tests/waits.rs:L read-held by 2 (#N, #N)");
        end([waiting, first, second]);

        // A plain thread has no name here, and does not tell when it began.
        let (locked, is_locked) = std_mpsc::channel();
        let (release, released) = std_mpsc::channel::<()>();
        let thread = std::thread::spawn({
            let lock = lock.clone();
            move || {
                let _lock = lock.lock();
                locked.send(()).unwrap();
                let _ = released.recv();
            }
        });
        is_locked.recv().unwrap();
        let waiting = spawn("waiting", move || drop(lock.lock()));
        waits(&waiting, "lock \"db pool\" tests/waits.rs:L held by thread N for T");
        drop(release);
        thread.join().unwrap();
        waiting.join().unwrap();
    });
}

#[test]
fn channels_say_who_is_left_and_who_used_them_last() {
    in_task(|| {
        let (send, receive) = mpsc::sync_channel_named::<u8>("jobs", 1);
        let other = send.clone();
        let receiver = spawn("worker", move || {
            while receive.recv() != Ok(9) {}
            coro::sleep(LONG);
            drop(receive);
        });
        waits(&receiver, "recv channel \"jobs\" tests/waits.rs:L (2 senders; nothing sent yet)");
        let feeder = spawn("feeder", move || {
            send.send(1).unwrap();
            coro::sleep(LONG);
            drop(send);
        });
        waits(&feeder, "sleep T left");
        waits(&receiver, "recv channel \"jobs\" tests/waits.rs:L (2 senders; last send by #N \"feeder\", T ago)");
        end([feeder]);
        waits(&receiver, "recv channel \"jobs\" tests/waits.rs:L (1 sender; last send by #N, T ago)");
        let full = spawn("full", move || {
            other.send(9).unwrap();
            while other.send(2).is_ok() {}
        });
        waits(&full, "send channel \"jobs\" tests/waits.rs:L (1 of 1 message; last recv by #N \"worker\", T ago)");
        end([full, receiver]);

        let (meet, _other_side) = mpmc::sync_channel::<u8>(0);
        let sender = spawn("sender", move || _ = meet.send(1));
        waits(&sender, "send channel tests/waits.rs:L (1 receiver; nothing received yet)");
        let (_reply, answer) = oneshot::channel_named::<u8>("reply");
        let asker = spawn("asker", move || _ = answer.recv());
        waits(&asker, "recv oneshot \"reply\" tests/waits.rs:L");
        end([sender, asker]);
    });
}

#[test]
fn the_other_primitives_say_what_is_missing() {
    in_task(|| {
        let slots = Arc::new(Semaphore::new(3).named("slots"));
        let user = spawn("user", {
            let slots = slots.clone();
            move || {
                let _taken = slots.acquire_many(2);
                coro::sleep(LONG);
            }
        });
        waits(&user, "sleep T left");
        let wants = spawn("wants", move || drop(slots.acquire_many(2)));
        waits(
            &wants,
            "semaphore \"slots\" tests/waits.rs:L (1 permit free, wants 2; last taken by #N \"user\", T ago)",
        );

        let pair = Arc::new((Mutex::new(()).named("state"), Condvar::new().named("ready")));
        let changes = spawn("changes", {
            let pair = pair.clone();
            move || {
                let state = pair.0.lock().unwrap();
                let state = pair.1.wait(state).unwrap();
                drop(pair.1.wait(state));
            }
        });
        waits(&changes, "condvar \"ready\" tests/waits.rs:L (with lock \"state\" tests/waits.rs:L; never notified)");
        let notifier = spawn("notifier", move || {
            pair.1.notify_all();
            coro::sleep(LONG);
        });
        waits(
            &changes,
            "condvar \"ready\" tests/waits.rs:L (with lock \"state\" tests/waits.rs:L; last notified by #N \"notifier\", T ago)",
        );
        end([user, wants, changes, notifier]);

        let barrier = Arc::new(Barrier::new(3));
        let first = spawn("first", move || _ = barrier.wait());
        waits(&first, "barrier tests/waits.rs:L (1 of 3 have come)");
        let once = Arc::new(Once::new().named("settings"));
        let runs = spawn("reader of settings", {
            let once = once.clone();
            move || once.call_once(|| coro::sleep(LONG))
        });
        waits(&runs, "sleep T left");
        let needs = spawn("needs", move || once.call_once(|| ()));
        waits(&needs, "once \"settings\" tests/waits.rs:L run by #N \"reader of settings\" for T");
        let event = Event::new().named("started");
        let waiter = spawn("waiter", move || event.wait());
        waits(&waiter, "event \"started\" tests/waits.rs:L");
        let group = Arc::new(WaitGroup::new().named("requests"));
        group.add(3);
        let drain = spawn("drain", {
            let group = group.clone();
            move || group.wait()
        });
        waits(&drain, "wait group \"requests\" tests/waits.rs:L (3 left)");
        let done = spawn("request", move || {
            group.done();
            coro::sleep(LONG);
        });
        waits(&drain, "wait group \"requests\" tests/waits.rs:L (2 left; last done by #N \"request\", T ago)");
        end([needs, first, runs, waiter, drain, done]);
    });
}

#[test]
fn waits_without_an_object_have_their_words_too() {
    in_task(|| {
        let parked = spawn("parked", coro::thread::park);
        waits(&parked, "park");
        let child = spawn("child", || coro::sleep(LONG));
        waits(&child, "sleep T left");
        let joins = spawn("joins", move || drop(child.join()));
        waits(&joins, "join #N \"child\"");
        let scope = spawn("scope", || {
            coro::scope(|s| {
                s.spawn(|| coro::sleep(LONG));
                s.spawn(|| coro::sleep(LONG));
            });
        });
        waits(&scope, "scope (2 children left)");
        end([parked, joins, scope]);

        // One thread for jobs: the second job waits for it, and so does a name lookup.
        let threads = coro::set_blocking_threads(1);
        let (release, released) = std_mpsc::channel::<()>();
        let job = spawn("job", move || drop(coro::blocking(move || released.recv().is_ok())));
        waits(&job, "blocking job that has run for T");
        let queued = spawn("queued", || drop(coro::blocking(|| ())));
        waits(&queued, "blocking job that waits for a thread");
        let lookup = spawn("lookup", || drop(TcpStream::connect("db.internal.invalid:1")));
        let mut text = String::new();
        until(LIMIT, "the lookup", || {
            text = coro::where_is(lookup.id()).map(|t| masked(&t.wait)).unwrap_or_default();
            !text.is_empty()
        });
        assert!(text.starts_with("name lookup \"db.internal.invalid\""), "{text}");
        drop(release);
        end([job, queued, lookup]);
        coro::set_blocking_threads(threads);
    });
}

#[test]
fn what_will_end_a_wait_stands_behind_it() {
    in_task(|| {
        let event = Arc::new(Event::new());
        let own = spawn("own", {
            let event = event.clone();
            move || event.wait_timeout(LONG)
        });
        waits(&own, "event tests/waits.rs:L for at most T more");
        let around = spawn("around", {
            let event = event.clone();
            move || coro::timeout(LONG, || coro::timeout(LONG / 2, || event.wait())).is_ok()
        });
        waits(&around, "event tests/waits.rs:L, timeout in T");
        // The nearer one of the two.
        let snapshot = Snapshot::take(&Options::default());
        let wait = |id: u64| snapshot.tasks.iter().find(|t| t.id == id).and_then(|t| t.wait.clone()).unwrap();
        let left = wait(around.id()).timeout_left.unwrap();
        assert!(left <= LONG / 2 && left > LONG / 3, "{left:?}");
        let left = wait(own.id()).left.unwrap();
        assert!(left <= LONG && left > LONG / 2, "{left:?}");
        // A limit outside of a shield cannot end the wait.
        let shielded = spawn("shielded", {
            let event = event.clone();
            move || coro::timeout(LONG, || coro::shield(|| event.wait())).is_ok()
        });
        waits(&shielded, "event tests/waits.rs:L");
        event.set();
        assert!(own.join().unwrap() && around.join().unwrap() && shielded.join().unwrap());
    });
}

fn object(name: &str) -> (Object, Snapshot) {
    let snapshot = Snapshot::take(&Options::default());
    let found = snapshot.objects.iter().find(|o| o.name.as_deref() == Some(name)).cloned();
    (found.unwrap_or_else(|| panic!("{name} is not listed")), snapshot)
}

#[test]
fn objects_count_their_waiters_and_know_the_oldest_wait() {
    in_task(|| {
        let lock = Arc::new(Mutex::new(()).named("hot"));
        let held = lock.lock();
        let waiting: Vec<_> = (0..5)
            .map(|_| {
                let lock = lock.clone();
                spawn("query", move || drop(lock.lock()))
            })
            .collect();
        waiting.iter().for_each(|w| waits(w, "lock \"hot\" tests/waits.rs:L held by #N for T"));
        let (hot, snapshot) = object("hot");
        let me = coro::current().expect("a task").id();
        assert_eq!((hot.kind, hot.waiters, hot.owner), ("lock", 5, Some(Party::Task(me))));
        // Also those that are left out themselves.
        let mut options = Options::default();
        options.limit = 1;
        let few = Snapshot::take(&options);
        let waiters = few.objects.iter().find(|o| o.address == hot.address).map(|o| o.waiters);
        assert_eq!((few.tasks.len(), waiters), (1, Some(5)));
        let place = snapshot.objects.iter().position(|o| o.address == hot.address);
        let ages = waiting.iter().map(|w| snapshot.tasks.iter().find(|t| t.id == w.id()).unwrap().age);
        assert_eq!(hot.oldest_wait, ages.max());
        assert!(hot.held_for.is_some_and(|held| held >= hot.oldest_wait.unwrap()));
        for w in &waiting {
            let task = snapshot.tasks.iter().find(|t| t.id == w.id()).unwrap();
            assert_eq!(task.wait.as_ref().unwrap().object, place);
            let edges: Vec<_> = snapshot.edges.iter().filter(|e| e.from == w.id()).collect();
            assert_eq!(edges.len(), 1);
            assert_eq!((edges[0].to, edges[0].object, edges[0].certain), (Party::Task(me), place, true));
        }
        drop(held);
        waiting.into_iter().for_each(|w| w.join().unwrap());

        // A channel that grows is listed although nobody waits for it.
        let (send, receive) = mpsc::channel_named::<u8>("growing");
        (0..1000).for_each(|_| send.send(1).unwrap());
        let (growing, _) = object("growing");
        assert_eq!((growing.kind, growing.waiters, growing.oldest_wait), ("channel", 0, None));
        let details = masked(&growing.details);
        assert_eq!(details, "1000 messages, 1 sender, 1 receiver; last send by #N, T ago");
        drop((send, receive));
        let gone = Snapshot::take(&Options::default());
        assert!(gone.objects.iter().all(|o| o.name.as_deref() != Some("growing")));

        // Readers and children are known one by one.
        let table = Arc::new(RwLock::new(()).named("readers"));
        let read = table.read();
        let writer = spawn("writer", {
            let table = table.clone();
            move || drop(table.write())
        });
        waits(&writer, "write lock \"readers\" tests/waits.rs:L read-held by 1");
        drop(read);
        writer.join().unwrap();
    });
}
