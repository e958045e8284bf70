//! Files and the standard descriptors, as a program uses them: contents, the views, and workers that go on whatever a disk does.

mod harness;

use std::io::{BufRead, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use coro::fs::{self, File, OpenOptions, TryLockError};
use harness::{PATIENCE, Rng, case, child, command, runtime, seed, task_until, until_parked};

/// A directory that goes away.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("coro-files-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A pipe in the file system: an `open` of it to read does not return before somebody opens it to write.
fn fifo(path: &Path) {
    let name = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
    // SAFETY: a path that ends with a zero.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
}

/// The same calls with std's names and ours, in a task with one worker, and on a plain thread, say the same.
#[test]
fn files_are_as_with_std() {
    macro_rules! story {
        ($fs:path, $dir:expr) => {{
            use $fs as fs;
            let (dir, mut said) = ($dir, Vec::<String>::new());
            macro_rules! say {
                ($e:expr) => {
                    said.push(format!("{:?}", ($e).map_err(|e| e.kind())))
                };
            }
            let at = |name: &str| dir.join(name);
            say!(fs::create_dir(at("a")));
            say!(fs::create_dir(at("a")));
            say!(fs::create_dir_all(at("a/b/c")));
            say!(fs::write(at("a/x"), "some text"));
            say!(fs::read_to_string(at("a/x")));
            say!(fs::read(at("a/none")));
            say!(fs::copy(at("a/x"), at("a/y")));
            say!(fs::rename(at("a/y"), at("a/z")));
            say!(fs::exists(at("a/y")));
            say!(fs::hard_link(at("a/z"), at("a/hard")));
            say!(fs::metadata(at("a/z")).map(|m| (m.len(), m.is_file(), m.permissions().mode() & 0o777)));
            say!(fs::set_permissions(at("a/z"), fs::Permissions::from_mode(0o640)));
            say!(fs::symlink_metadata(at("a/z")).map(|m| m.permissions().mode() & 0o777));
            say!(fs::canonicalize(at("a/../a/z")).map(|p| p.ends_with("a/z")));
            let mut names: Vec<_> = fs::read_dir(at("a"))
                .unwrap()
                .map(|e| e.unwrap())
                .map(|e| (e.file_name(), e.file_type().unwrap().is_dir(), e.metadata().unwrap().len() > 0, e.path() == at("a").join(e.file_name())))
                .collect();
            names.sort();
            said.push(format!("{names:?}"));
            say!(fs::read_dir(at("none")).map(drop));

            let mut file = fs::OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(at("f")).unwrap();
            say!(file.write(b"0123456789"));
            say!(file.write_vectored(&[std::io::IoSlice::new(b"ab"), std::io::IoSlice::new(b"cd")]));
            say!(file.seek(SeekFrom::Start(2)));
            let mut three = [0; 3];
            say!(file.read(&mut three));
            say!(file.stream_position());
            say!(file.seek(SeekFrom::End(-2)));
            let mut text = String::from("rest: ");
            say!(file.read_to_string(&mut text));
            say!(file.read(&mut three));
            said.push(format!("{three:?} {text}"));
            say!(file.write_at(b"XY", 1));
            say!(file.read_at(&mut three, 0));
            say!(file.read_exact_at(&mut three, 12));
            say!(file.set_len(4));
            let mut clone = file.try_clone().unwrap();
            say!(clone.rewind());
            let mut all = vec![b'>'];
            say!(file.read_to_end(&mut all));
            said.push(format!("{three:?} {all:?}"));
            say!(clone.stream_position());
            say!(file.sync_all());
            say!(file.sync_data());
            let time = std::time::UNIX_EPOCH + Duration::from_secs(1_000_000);
            say!(file.set_modified(time));
            say!(file.metadata().map(|m| (m.len(), m.modified().unwrap() == time)));
            say!(fs::File::open(at("none")).map(drop));
            say!(fs::File::create(at("none/x")).map(drop));
            say!(fs::File::create_new(at("f")).map(drop));
            say!(fs::File::open(at("a")).and_then(|mut f| f.read(&mut three)));
            say!(fs::write(at("bad"), [0xff, 0xfe]));
            say!(fs::read_to_string(at("bad")));
            say!(fs::File::open(at("bad")).and_then(|mut f| f.read_to_string(&mut text)));
            say!(fs::remove_dir(at("a")));
            say!(fs::remove_file(at("f")));
            say!(fs::remove_dir_all(at("a")));
            say!(fs::remove_file(at("f")));
            said
        }};
    }
    let scratch = Scratch::new("story");
    let dirs = ["std", "task", "thread"].map(|n| scratch.at(n));
    dirs.iter().for_each(|d| std::fs::create_dir(d).unwrap());
    let std_says = story!(std::fs, &dirs[0]);
    let dir = dirs[1].clone();
    let tasks_say = runtime(1).block_on(move || story!(coro::fs, &dir));
    assert_eq!(std_says, tasks_say);
    assert_eq!(std_says, story!(coro::fs, &dirs[2]));
    assert!(std_says.len() > 40, "{}", std_says.len());
}

/// Random pieces at random places, read back through every way of reading, against an image in memory.
#[test]
fn what_is_written_in_pieces_is_read_in_pieces() {
    let scratch = Scratch::new("pieces");
    let seed = seed();
    println!("CORO_TEST_SEED={seed}");
    runtime(2).block_on(move || {
        let mut rng = Rng(seed);
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).open(scratch.at("f")).unwrap();
        let mut image: Vec<u8> = Vec::new();
        for round in 0..300 {
            let (at, len) = (rng.below(60_000) as usize, rng.below(3000) as usize);
            let bytes: Vec<u8> = (0..len).map(|i| (i as u64 ^ rng.0) as u8).collect();
            if len > 0 && image.len() < at + len {
                image.resize(at + len, 0);
            }
            let start = at.min(image.len());
            image[start..].iter_mut().zip(&bytes).for_each(|(to, from)| *to = *from);
            if round % 2 == 0 {
                file.seek(SeekFrom::Start(at as u64)).unwrap();
                file.write_all(&bytes).unwrap();
            } else {
                file.write_all_at(&bytes, at as u64).unwrap();
            }
            let from = rng.below(image.len() as u64 + 1) as usize;
            let mut got = vec![0; (rng.below(5000) as usize).min(image.len() - from)];
            if round % 3 == 0 {
                file.read_exact_at(&mut got, from as u64).unwrap();
            } else {
                file.seek(SeekFrom::Start(from as u64)).unwrap();
                file.read_exact(&mut got).unwrap();
            }
            assert!(got == image[from..from + got.len()], "round {round}");
        }
        file.rewind().unwrap();
        let mut lines = coro::io::BufReader::with_capacity(1000, file);
        let mut all = Vec::new();
        lines.read_to_end(&mut all).unwrap();
        assert!(all == image && fs::read(scratch.at("f")).unwrap() == image);
    });
}

/// A hundred tasks write files while one job hangs in the kernel: no slice is long, a ticker is on time, and nobody is told of a
/// stall.
#[test]
fn workers_go_on_beside_a_disk_that_hangs() {
    let e = child("slow-disk").passed();
    assert!(!e.err.contains("High Latency"), "{}", e.err);
    println!("{}", e.out);
}

fn slow_disk() {
    let scratch = Scratch::new("slow");
    fifo(&scratch.at("slow"));
    let stuck_on = scratch.at("slow");
    let rt = runtime(2);
    let stuck = rt.spawn(move || fs::read_to_string(stuck_on));
    until_parked(stuck.task(), "file read \"");
    let dir = scratch.0.clone();
    let (longest, written) = rt.block_on(move || {
        let over = Arc::new(AtomicBool::new(false));
        let seen = over.clone();
        let ticker = coro::spawn(move || {
            let mut longest = Duration::ZERO;
            while !seen.load(Ordering::SeqCst) {
                let before = Instant::now();
                coro::sleep(Duration::from_millis(1));
                longest = longest.max(before.elapsed());
            }
            longest
        });
        let writers: Vec<_> = (0..100)
            .map(|n| {
                let path = dir.join(format!("{n}"));
                coro::spawn(move || {
                    let mut file = File::create(&path)?;
                    for piece in 0..10u8 {
                        file.write_all(&[piece; 4096])?;
                    }
                    file.sync_data()?;
                    fs::read(&path).map(|all| all.len())
                })
            })
            .collect();
        let written: usize = writers.into_iter().map(|w| w.join().unwrap().unwrap()).sum();
        over.store(true, Ordering::SeqCst);
        (ticker.join().unwrap(), written)
    });
    assert_eq!(written, 100 * 10 * 4096);
    println!("the ticker was {longest:?} late at most");
    // The job hangs for as long as the test lasts: whoever waited for it would be late by that. The machine may be busy.
    assert!(longest < Duration::from_secs(1), "{longest:?}");
    // It still hangs, where every view says it does.
    let wait = coro::inspect::where_is(stuck.id()).unwrap().to_string();
    assert!(wait.contains("file read \"") && wait.contains("/slow\" that has run for "), "{wait}");
    let jobs = coro::blocking_stats().running;
    let job = jobs.iter().find(|j| j.task == stuck.id()).expect("its job");
    let (call, path) = job.file.clone().unwrap();
    assert!(call == "read" && path.ends_with("/slow") && job.site.file() == file!(), "{job:?}");
    // A cancellation does not wait for the disk.
    stuck.cancel();
    assert!(stuck.join().unwrap().is_err());
    let go_on = std::fs::OpenOptions::new().write(true).open(scratch.at("slow"));
    drop(go_on);
}

/// A write that was given up goes on with memory of its own, and a later one at the same place comes after it.
#[test]
fn an_abandoned_write_keeps_its_bytes_and_its_turn() {
    let scratch = Scratch::new("abandoned");
    fifo(&scratch.at("pipe"));
    let path = scratch.at("pipe");
    let (tell, told) = mpsc::channel();
    let rt = runtime(1);
    // Both ends at once, so that opening does not wait.
    let mut reader = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let writer = rt.spawn(move || {
        let mut file = OpenOptions::new().write(true).open(path).unwrap();
        {
            // More than the pipe takes.
            let bytes = vec![b'a'; 200_000];
            let cut = coro::timeout(Duration::from_millis(30), || file.write(&bytes));
            assert!(cut.is_err() || cut.unwrap().is_err_and(|e| e.kind() == ErrorKind::TimedOut));
            drop(bytes);
        }
        let other = vec![b'x'; 200_000];
        tell.send(()).unwrap();
        // A pipe cannot be synchronised, which is said when the bytes before are written.
        let synced = file.sync_all();
        tell.send(()).unwrap();
        assert_eq!(synced.unwrap_err().raw_os_error(), Some(libc::EINVAL));
        file.write_all(b"bbb").unwrap();
        drop(other);
    });
    told.recv().unwrap();
    until_parked(writer.task(), "file sync \"");
    assert!(told.recv_timeout(Duration::from_millis(20)).is_err(), "nothing of it is on any disk");
    let mut got = vec![0; 200_003];
    reader.read_exact(&mut got).unwrap();
    writer.join().unwrap();
    told.recv().unwrap();
    assert!(got[..200_000].iter().all(|b| *b == b'a') && &got[200_000..] == b"bbb");
}

/// How many threads of the pool are at a lock of that file.
fn locking(path: &Path) -> usize {
    let jobs = coro::blocking_stats().running;
    let on_it = |file: &(&str, Arc<str>)| file.0 == "lock" && Path::new(&*file.1) == path;
    jobs.iter().filter(|job| job.file.as_ref().is_some_and(on_it)).count()
}

/// Locks exclude as std's do, in tasks and on plain threads; a task that waits for one is parked and says so.
#[test]
fn a_lock_on_a_file_parks_the_task() {
    let scratch = Scratch::new("lock");
    let path = scratch.at("f");
    let would_block = |r: Result<(), TryLockError>| matches!(r, Err(TryLockError::WouldBlock));
    let story = {
        let path = path.clone();
        move || {
            let (a, b) = (File::create(&path).unwrap(), File::open(&path).unwrap());
            a.lock().unwrap();
            assert!(would_block(b.try_lock()) && would_block(b.try_lock_shared()));
            let e = std::io::Error::from(b.try_lock().unwrap_err());
            assert_eq!(e.kind(), ErrorKind::WouldBlock);
            a.unlock().unwrap();
            b.try_lock_shared().unwrap();
            a.lock_shared().unwrap();
            a.unlock().unwrap();
            assert!(would_block(a.try_lock()));
            // The lock is the open file's, and goes with its last handle.
            let clone = b.try_clone().unwrap();
            drop(b);
            assert!(would_block(a.try_lock()));
            drop(clone);
            a.try_lock().unwrap();
        }
    };
    story();
    let rt = runtime(1);
    rt.block_on(story);
    let (a, b) = (File::open(&path).unwrap(), File::open(&path).unwrap());
    a.try_lock().unwrap();
    let waits = rt.spawn(move || b.lock().map(|()| b));
    until_parked(waits.task(), &format!("file lock \"{}\" that has run for ", path.display()));
    // The one worker goes on.
    assert_eq!(rt.block_on(|| 7), 7);
    a.unlock().unwrap();
    let b = waits.join().unwrap().unwrap();
    assert!(would_block(a.try_lock_shared()));
    let thread = std::thread::spawn(move || a.lock().map(|()| a));
    b.unlock().unwrap();
    assert!(would_block({
        let _a = thread.join().unwrap().unwrap();
        b.try_lock()
    }));
}

/// Whoever gives a wait up leaves no lock behind that nobody knows of, and no thread for each time.
#[test]
fn an_abandoned_lock_is_given_back() {
    let scratch = Scratch::new("abandoned-lock");
    let path = scratch.at("f");
    runtime(2).block_on(move || {
        let (a, b) = (File::create(&path).unwrap(), Arc::new(File::open(&path).unwrap()));
        let give_up = || {
            for _ in 0..5 {
                let b = b.clone();
                let waits = coro::spawn(move || b.lock());
                until_parked(waits.task(), "file lock \"");
                task_until("one thread waits", || locking(&path) == 1);
                waits.cancel();
                assert!(waits.join().is_ok_and(|r| r.is_err()));
            }
            assert_eq!(locking(&path), 1);
        };
        a.lock().unwrap();
        give_up();
        a.unlock().unwrap();
        task_until("it was given back", || locking(&path) == 0 && a.try_lock().is_ok());

        // The next who asks gets the lock for which the thread waits already.
        give_up();
        let again = b.clone();
        let other = coro::spawn(move || again.lock());
        until_parked(other.task(), "file lock \"");
        assert_eq!(locking(&path), 1);
        a.unlock().unwrap();
        other.join().unwrap().unwrap();
        assert!(matches!(a.try_lock(), Err(TryLockError::WouldBlock)));
        b.unlock().unwrap();

        // One that was taken in another way meanwhile stays, also when the thread has its own in the end. Who comes first is
        // nobody's choice.
        a.lock().unwrap();
        give_up();
        a.unlock().unwrap();
        task_until("it is locked", || b.try_lock().is_ok());
        task_until("no thread waits", || locking(&path) == 0);
        assert!(matches!(a.try_lock(), Err(TryLockError::WouldBlock)));
        b.unlock().unwrap();

        // Cut short before a thread has begun, and where others wait for another kind.
        a.lock().unwrap();
        let kinds: Vec<_> = (0..6)
            .map(|n| {
                let b = b.clone();
                coro::spawn(move || if n % 2 == 0 { b.lock_shared() } else { b.lock() })
            })
            .collect();
        kinds.iter().for_each(|t| until_parked(t.task(), "file lock \""));
        kinds.iter().take(5).for_each(|t| _ = t.cancel());
        a.unlock().unwrap();
        let ended: Vec<bool> = kinds.into_iter().map(|t| t.join().unwrap().is_ok()).collect();
        assert!(ended[5], "the one that stayed has it");
        assert!(matches!(a.try_lock_shared(), Err(TryLockError::WouldBlock)));
    });
}

/// Listings are read in pieces; one that is cut short goes on where it was.
#[test]
fn a_long_listing_loses_nothing() {
    let scratch = Scratch::new("listing");
    for n in 0..1000 {
        std::fs::write(scratch.at(&format!("{n}")), "").unwrap();
    }
    runtime(1).block_on(move || {
        let mut entries = fs::read_dir(&scratch.0).unwrap();
        let (mut seen, mut errors) = (Vec::new(), 0);
        loop {
            // Expired already: a call that has to go to the pool gets the error, and the next one goes on.
            match coro::timeout(Duration::ZERO, || entries.next()).or_else(|e| e.into_value().ok_or(())) {
                Ok(Some(Ok(entry))) => seen.push(entry),
                Ok(Some(Err(_))) | Err(()) => {
                    errors += 1;
                    seen.extend(entries.next().map(Result::unwrap));
                }
                Ok(None) => break,
            }
        }
        let name = |e: fs::DirEntry| e.file_name().into_string().unwrap().parse::<u32>().unwrap();
        let mut seen: Vec<u32> = seen.into_iter().map(name).collect();
        seen.sort_unstable();
        assert!(seen.into_iter().eq(0..1000), "{errors} errors");
        assert!((1..100).contains(&errors), "{errors}");
    });
}

/// What is in memory is read without the pool: its threads are not even started.
#[cfg(target_os = "linux")]
#[test]
fn a_file_in_memory_is_read_without_the_pool() {
    let scratch = Scratch::new("cached");
    std::fs::write(scratch.at("f"), vec![5; 100_000]).unwrap();
    let path = scratch.at("f");
    let std_file = std::fs::File::open(&path).unwrap();
    (&std_file).read_to_end(&mut Vec::new()).unwrap();
    let supported = {
        let mut byte = [0u8];
        let iov = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
        use std::os::fd::AsRawFd;
        // SAFETY: one buffer of one byte.
        unsafe { libc::preadv2(std_file.as_raw_fd(), &raw const iov, 1, 0, libc::RWF_NOWAIT) == 1 }
    };
    if !supported {
        println!("skipped: the file system of {} does not read without waiting", path.display());
        return;
    }
    runtime(1).block_on(move || {
        let mut file = File::from(std_file);
        file.rewind().unwrap();
        // A job on the pool would give way, and the others would run.
        let ran = Arc::new(AtomicBool::new(false));
        let saw = ran.clone();
        drop(coro::spawn_local(move || saw.store(true, Ordering::SeqCst)));
        let mut piece = [0; 1000];
        for _ in 0..10 {
            file.read_exact(&mut piece).unwrap();
            file.read_exact_at(&mut piece, 50_000).unwrap();
        }
        assert!(!ran.load(Ordering::SeqCst), "reading what is in memory parked the task");
        assert_eq!(file.stream_position().unwrap(), 10_000);
        // The end is asked of the pool.
        file.seek(SeekFrom::Start(100_000)).unwrap();
        assert_eq!(file.read(&mut piece).unwrap(), 0);
        // A job that is over before the task parks needs no wait; this one does.
        coro::yield_slice();
        assert!(ran.load(Ordering::SeqCst));
    });
}

/// Standard input parks the task, a reader that was cut short has taken nothing, and output comes in order.
#[test]
fn the_standard_descriptors_park_the_task() {
    use std::process::Stdio;
    let mut command = command("stdio");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut to = child.stdin.take().unwrap();
    let from = child.stdout.take().unwrap();
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let mut lines = std::io::BufReader::new(from).lines().map_while(Result::ok);
        lines.try_for_each(|line| tell.send(line))
    });
    let until = |what: &str| {
        let mut lines = std::iter::from_fn(|| told.recv_timeout(PATIENCE).ok());
        assert!(lines.any(|l| l.contains(what)), "the child never said {what:?}");
    };
    until("ready");
    to.write_all(b"first\nsecond\nthird").unwrap();
    until("got first");
    until("got second");
    drop(to);
    until("last third");
    until("line 999.");
    until("over");
    until("1 passed");
    let mut err = String::new();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    assert!(child.wait().unwrap().success() && err.contains("to standard error, 42"), "{err}");
}

fn stdio() {
    runtime(1).block_on(|| {
        let reader = coro::spawn(|| coro::io::stdin().lines().next());
        until_parked(reader.task(), "read fd 0 stdin");
        reader.cancel();
        assert!(reader.join().is_ok_and(|line| line.is_some_and(|l| l.is_err())));
        let reader = coro::spawn(|| {
            let mut lines = coro::io::stdin().lines();
            let mut out = coro::io::stdout();
            writeln!(out, "got {}", lines.next().unwrap().unwrap()).unwrap();
            writeln!(out, "got {}", lines.next().unwrap().unwrap()).unwrap();
            writeln!(out, "last {}", lines.next().unwrap().unwrap()).unwrap();
            assert!(lines.next().is_none());
        });
        until_parked(reader.task(), "read fd 0 stdin");
        writeln!(coro::io::stdout(), "ready").unwrap();
        reader.join().unwrap();
        let mut out = coro::io::stdout().lock();
        for n in 0..1000 {
            writeln!(out, "line {n}.").unwrap();
        }
        writeln!(coro::io::stdout(), "over").unwrap();
        drop(out);
        writeln!(coro::io::stderr(), "to standard error, {}", 42).unwrap();
        // The flags are nobody's to change.
        // SAFETY: asks for flags.
        assert!((0..=2).all(|fd| unsafe { libc::fcntl(fd, libc::F_GETFL) } & libc::O_NONBLOCK == 0));
    });
}

/// A file as standard input cannot be waited for, and one that is closed is at its end.
#[test]
fn standard_input_may_be_a_file_or_closed() {
    let scratch = Scratch::new("stdin");
    std::fs::write(scratch.at("f"), "one\ntwo\n").unwrap();
    let mut command = command("other-stdin");
    let child = command.stdin(std::fs::File::open(scratch.at("f")).unwrap()).spawn().unwrap();
    harness::wait("other-stdin", child).passed();
}

fn other_stdin() {
    runtime(1).block_on(|| {
        let mut lines = coro::io::stdin().lines();
        assert_eq!(lines.next().unwrap().unwrap(), "one");
        assert_eq!(lines.next().unwrap().unwrap(), "two");
        assert!(lines.next().is_none() && lines.next().is_none());
        drop(lines);
        // SAFETY: nobody else uses it.
        unsafe { libc::close(0) };
        assert_eq!(coro::io::stdin().read(&mut [0; 8]).unwrap(), 0);
    });
}

/// From a file to a file, in pieces, and the errors of either.
#[test]
fn a_copy_goes_to_the_end_or_says_why_not() {
    /// Interrupted first, as a read may be at any time; then bytes; then an error.
    struct Breaks(u32);

    impl Read for Breaks {
        fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
            self.0 += 1;
            match self.0 {
                1 => Err(ErrorKind::Interrupted.into()),
                2 => Ok(buf.len()),
                _ => Err(ErrorKind::ConnectionReset.into()),
            }
        }
    }

    let scratch = Scratch::new("copy");
    let bytes: Vec<u8> = (0..300_000u32).map(|n| (n % 251) as u8).collect();
    std::fs::write(scratch.at("from"), &bytes).unwrap();
    runtime(1).block_on(move || {
        let (mut from, mut to) = (File::open(scratch.at("from")).unwrap(), File::create(scratch.at("to")).unwrap());
        assert_eq!(coro::io::copy(&mut from, &mut to).unwrap(), 300_000);
        assert!(fs::read(scratch.at("to")).unwrap() == bytes);
        let mut got = Vec::new();
        assert_eq!(coro::io::copy(&mut Breaks(0), &mut got).unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert!(!got.is_empty());
        let full = coro::io::copy(&mut &bytes[..], &mut &mut [0; 10][..]).unwrap_err();
        assert_eq!(full.kind(), ErrorKind::WriteZero);
    });
}

/// Nobody reads what the process says: tasks wait parked, those that were cut short hold one thread of the pool up and not one
/// each, and what a dropped lock had is not lost.
#[test]
fn output_that_nobody_takes_blocks_no_worker_and_no_pool() {
    child("blocked-output").passed();
}

/// Standard output as it was.
struct Restored(std::os::fd::OwnedFd);

impl Drop for Restored {
    fn drop(&mut self) {
        use std::os::fd::AsRawFd;
        // SAFETY: both are open.
        unsafe { libc::dup2(self.0.as_raw_fd(), 1) };
    }
}

fn blocked_output() {
    use std::os::fd::{AsFd, AsRawFd};
    let (mut reader, mut full) = std::io::pipe().unwrap();
    // SAFETY: plain flag changes.
    let nonblocking = |fd, on: bool| unsafe { libc::fcntl(fd, libc::F_SETFL, if on { libc::O_NONBLOCK } else { 0 }) };
    nonblocking(full.as_raw_fd(), true);
    let mut filled = 0;
    while let Ok(n) = full.write(&[b'.'; 4096]) {
        filled += n;
    }
    nonblocking(full.as_raw_fd(), false);
    let restored = Restored(std::io::stdout().as_fd().try_clone_to_owned().unwrap());
    // SAFETY: both are open.
    unsafe { libc::dup2(full.as_raw_fd(), 1) };
    coro::set_blocking_threads(4);
    // With one worker: this goes on while they wait.
    runtime(1).block_on(|| {
        let first = coro::spawn(|| writeln!(coro::io::stdout(), "first"));
        until_parked(first.task(), "file write \"stdout\" that has run for ");
        first.cancel();
        assert!(first.join().is_ok_and(|r| r.is_err()));
        let held_up = |job: &coro::BlockingJob| {
            job.file.as_ref().is_some_and(|(call, path)| (*call, &**path) == ("write", "stdout"))
        };
        let threads = || coro::blocking_stats().running.iter().filter(|job| held_up(job)).count();
        for n in 0..5 {
            let cut = coro::timeout(Duration::from_millis(10), || writeln!(coro::io::stdout(), "cut {n}"));
            assert!(cut.is_err() || cut.unwrap().is_err());
        }
        let next = coro::spawn(|| writeln!(coro::io::stdout(), "next"));
        until_parked(next.task(), "file write \"stdout\"");
        assert_eq!(threads(), 1);
        let metadata = coro::timeout(Duration::from_secs(5), || fs::metadata("/"));
        assert!(metadata.expect("the pool has threads left").is_ok());
        next.cancel();
        assert!(next.join().is_ok_and(|r| r.is_err()));

        for n in 0..3 {
            let task = coro::spawn(move || {
                let mut out = coro::io::stdout().lock();
                write!(out, "kept {n} ").unwrap();
                coro::shield(|| task_until("it is cancelled", coro::is_cancelled));
            });
            until_parked(task.task(), "sleep");
            task.cancel();
            let _ = task.join();
        }
        task_until("the job that writes what they left has a thread", || threads() == 2);
        let last = coro::spawn(|| writeln!(coro::io::stdout(), "last"));
        until_parked(last.task(), "file write \"stdout\"");
        let expected = "first\nkept 0 kept 1 kept 2 last\n";
        let mut text = vec![0; filled + expected.len()];
        let all = coro::blocking(move || reader.read_exact(&mut text).map(|()| text)).unwrap().unwrap();
        assert_eq!(String::from_utf8_lossy(&all[filled..]), expected);
        last.join().unwrap().unwrap();
    });
    drop(restored);
}

/// Plays the cases that need a process of their own.
#[test]
#[ignore = "a child of the other tests"]
fn child_process() {
    let Some(case) = case() else { return };
    match &*case {
        "slow-disk" => slow_disk(),
        "stdio" => stdio(),
        "other-stdin" => other_stdin(),
        "blocked-output" => blocked_output(),
        other => panic!("no case {other}"),
    }
}
