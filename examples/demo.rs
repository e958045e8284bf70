//! A chat server to look into while it runs: `cargo run --release --example demo`, then follow the lines it prints.
//!
//! Every client has a task that reads (`client`) and one that writes (`client_writer`); every room has one task per
//! worker that hands its lines to the members (`room_writer`); a crowd of bots waits for time, a lock, a channel and a
//! socket. `/hog`, `/block` and `/panic` make something go wrong that the backdoor then shows.
//!
//! Ctrl-C ends it with a summary and exit code 0. If a task keeps the main task's worker from ending (`/block`), the
//! runtime names it after five seconds and exits with 130 (143 after SIGTERM).

use std::collections::BTreeMap;
use std::hint::black_box;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use coro::net::unix::UnixStream;
use coro::net::{TcpListener, TcpStream};
use coro::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel_named, sync_channel_named};

#[path = "util/text.rs"]
mod text;
mod util;
use text::{LONGEST_LINE, Lines};

const USAGE: &str = "usage: demo [--addr HOST:PORT] [--bots N] [--backdoor PATH] [--telnet]
  --addr HOST:PORT   where to listen (default 127.0.0.1:9000, or a free port if that one is taken)
  --bots N           how many tasks wait for something: a quarter each for time, a lock, a channel and (up to 256) a
                     socket (default 100)
  --backdoor PATH    the backdoor's socket (default in a private directory)
  --telnet           the backdoor also on 127.0.0.1, on the lowest free port of 8023 to 8033
Ctrl-C ends it with a summary and exit code 0, or with 130 if a task had to be left behind on the main task's worker.";

const DEFAULT_ADDR: &str = "127.0.0.1:9000";
const LOBBY: &str = "lobby";
const HELP: &str = "* /who  /join ROOM  /nick NAME  /quit  /help; anything else is said to your room
* something to look at: /hog SECONDS computes, /block SECONDS sleeps in the kernel, both without letting any other
* task of their worker run; /panic ends your task and nobody else's";
/// Lines that may wait for one client. With the longest line this bounds what a reader who does not read can take.
const QUEUE: usize = 256;
/// Lines that may wait for one room's writer; who says more waits.
const ROOM_QUEUE: usize = 64;
/// A client who takes nothing for this long, though lines wait, is dropped.
const WRITE_PATIENCE: Duration = Duration::from_secs(10);
const LONGEST_NAME: usize = 20;
/// Names that `/who` lists of one room.
const NAMES_SHOWN: usize = 50;

fn main() -> ExitCode {
    util::main("demo", USAGE, options(), |options| {
        std::thread::spawn(summary_of_a_wedged_end);
        coro::run(|| serve(&options))?;
        summary();
        io::Result::Ok(ExitCode::SUCCESS)
    })
}

struct Options {
    addr: Option<String>,
    backdoor: Option<PathBuf>,
    telnet: bool,
    bots: usize,
}

fn options() -> Result<Option<Options>, String> {
    use lexopt::prelude::{Long, Short};
    let mut parser = lexopt::Parser::from_env();
    let mut o = Options { addr: None, backdoor: None, telnet: false, bots: 100 };
    while let Some(arg) = parser.next().map_err(|e| e.to_string())? {
        match arg {
            Long("addr") => o.addr = Some(util::text(&mut parser, "--addr")?),
            Long("backdoor") => o.backdoor = Some(util::path(&mut parser, "--backdoor")?),
            Long("telnet") => o.telnet = true,
            Long("bots") => o.bots = util::number(&mut parser, "--bots", 0..=1_000_000)?,
            Long("help") | Short('h') => return Ok(None),
            other => return Err(other.unexpected().to_string()),
        }
    }
    Ok(Some(o))
}

/// The first task. Ends when the process is to stop: its `accept` is the wait that is told so first.
fn serve(o: &Options) -> io::Result<()> {
    coro::set_panic_notifier(Some(Arc::new(|panic| {
        STATS.panics.fetch_add(1, Relaxed);
        coro::print_stderr(panic.to_string());
    })));
    let listener = Arc::new(listen(o.addr.as_deref())?);
    let addr = listener.local_addr()?;
    let backdoor = match &o.backdoor {
        Some(path) => coro::backdoor::Builder::new().unix(path),
        None => coro::backdoor::Builder::new(),
    };
    let backdoor = if o.telnet { backdoor.tcp_loopback() } else { backdoor }.serve()?;
    // For `ask --pid`, and whoever has lost the socket's path. Linux only.
    if let Err(e) = coro::console::install_signal_handler()
        && e.kind() != io::ErrorKind::Unsupported
    {
        coro::print_stderr(format!("no sessions by signal: {e}"));
    }
    let hall = Arc::new(Hall::default());
    hall.open(LOBBY)?;
    for index in 0..coro::worker_stats().len() {
        coro::Builder::new().name(format!("stall meter {index}")).worker(index).spawn(move || stall_meter(index))?;
        // One each, so that a wedged worker does not keep new clients out. This task is its own worker's.
        if coro::current_worker() != Some(index) {
            let (hall, listener) = (hall.clone(), listener.clone());
            let named = coro::Builder::new().name(format!("acceptor {index}"));
            named.worker(index).spawn(move || acceptor(&hall, &listener))?;
        }
    }
    spawn_bots(o.bots)?;
    greet(addr, &backdoor.path().display().to_string());
    acceptor(&hall, &listener);
    Ok(())
}

fn listen(wish: Option<&str>) -> io::Result<TcpListener> {
    match wish {
        Some(addr) => TcpListener::bind(addr).map_err(|e| io::Error::new(e.kind(), format!("--addr {addr}: {e}"))),
        None => TcpListener::bind(DEFAULT_ADDR).or_else(|e| match e.kind() {
            io::ErrorKind::AddrInUse => TcpListener::bind("127.0.0.1:0"),
            _ => Err(e),
        }),
    }
}

/// A closed standard output is no reason to end.
fn say(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}

fn greet(addr: SocketAddr, backdoor: &str) {
    let host = match addr {
        SocketAddr::V4(a) if a.ip().is_unspecified() => "127.0.0.1".to_owned(),
        SocketAddr::V6(a) if a.ip().is_unspecified() => "::1".to_owned(),
        _ => addr.ip().to_string(),
    };
    let release = if cfg!(debug_assertions) { "" } else { " --release" };
    say(&format!(
        "listening on {addr}
backdoor on {backdoor}
To chat:            nc {host} {port}
To see every task:  printf 'where_all\\n' | socat -t60 - UNIX-CONNECT:{backdoor}
  or, without socat: cargo run -q{release} --example ask -- {backdoor} where_all
Then say /block 10 in the chat and look again. Ctrl-C ends it.",
        port = addr.port()
    ));
}

#[inline(never)]
fn acceptor(hall: &Arc<Hall>, listener: &TcpListener) {
    loop {
        match listener.accept() {
            Ok((socket, peer)) => {
                let hall = hall.clone();
                let spawned =
                    coro::Builder::new().name(format!("client {peer}")).spawn(move || client(&hall, socket, peer));
                if let Err(e) = spawned {
                    coro::print_stderr(format!("no task for client {peer}: {e}"));
                }
            }
            Err(_) if coro::is_cancelled() => return,
            Err(e) => {
                coro::print_stderr(format!("accept: {e}"));
                coro::sleep(Duration::from_millis(100));
            }
        }
    }
}

// ---- the hall: who is where ----

type Text = Arc<str>;

/// The way to one client.
struct Wire {
    queue: SyncSender<Text>,
    socket: Arc<TcpStream>,
    /// Reads too slowly; is on the way out.
    dropped: Arc<AtomicBool>,
}

impl Wire {
    /// Never waits: a client whose queue is full is dropped.
    fn post(&self, text: Text) {
        if let Err(TrySendError::Full(_)) = self.queue.try_send(text)
            && !self.dropped.swap(true, Relaxed)
        {
            STATS.slow.fetch_add(1, Relaxed);
            // Its reading task sees the end of the stream and takes the client out of the hall.
            let _ = self.socket.shutdown(Shutdown::Read);
        }
    }

    /// For the last moment, when no task waits any more: what the socket does not take at once is lost.
    fn post_now(&self, text: &str) {
        if let Ok(copy) = self.socket.as_fd().try_clone_to_owned() {
            let _ = (&std::net::TcpStream::from(copy)).write(text.as_bytes());
        }
    }
}

struct Member {
    nick: String,
    room: String,
    wire: Arc<Wire>,
}

/// One way in per worker, each with a writer there, so that a wedged worker does not silence a room.
type Room = Vec<SyncSender<Text>>;

#[derive(Default)]
struct State {
    members: BTreeMap<u64, Member>,
    rooms: BTreeMap<String, Room>,
    last_id: u64,
}

/// Under a lock of std's, which is right here: nobody waits while holding it, and unlike a lock of `coro::sync` it is
/// never handed to a task whose worker is wedged.
#[derive(Default)]
struct Hall(Mutex<State>);

impl Hall {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a room and its writers, unless it is there.
    fn open(self: &Arc<Hall>, name: &str) -> io::Result<()> {
        if self.state().rooms.contains_key(name) {
            return Ok(());
        }
        let mut room = Room::new();
        for index in 0..coro::worker_stats().len() {
            let (way_in, lines) = sync_channel_named("lines of a room", ROOM_QUEUE);
            let (hall, room_name) = (self.clone(), name.to_owned());
            let named = coro::Builder::new().name(format!("room {name} {index}"));
            named.worker(index).spawn(move || room_writer(&hall, &room_name, &lines))?;
            room.push(way_in);
        }
        self.state().rooms.entry(name.to_owned()).or_insert(room);
        Ok(())
    }

    fn enter(&self, wire: Arc<Wire>) -> u64 {
        let mut state = self.state();
        state.last_id += 1;
        let id = state.last_id;
        let nick = format!("guest{id}");
        state.members.insert(id, Member { nick, room: LOBBY.to_owned(), wire });
        id
    }

    fn leave(&self, id: u64) {
        let gone = self.state().members.remove(&id);
        if let Some(member) = gone {
            let how = if member.wire.dropped.load(Relaxed) { "was dropped: reads too slowly" } else { "left" };
            self.tell(&member.room, &format!("* {} {how}", member.nick));
            self.close_if_empty(&member.room);
        }
    }

    /// Without a way in, a room's writers end.
    fn close_if_empty(&self, room: &str) {
        let mut state = self.state();
        let closed = if room == LOBBY || state.members.values().any(|m| m.room == room) {
            None
        } else {
            state.rooms.remove(room)
        };
        drop(state);
        drop(closed);
    }

    fn way_into(&self, room: &str) -> Option<SyncSender<Text>> {
        self.state().rooms.get(room)?.get(coro::current_worker()?).cloned()
    }

    /// Tells a room something, if its queue has room; never waits, so that it may be called while a task unwinds.
    fn tell(&self, room: &str, text: &str) {
        if let Some(way_in) = self.way_into(room) {
            let _ = way_in.try_send(format!("{text}\r\n").into());
        }
    }

    /// Says a member's line; waits while the room has too much to do.
    #[cfg_attr(feature = "probe", coro::probe(skip(self)))]
    fn speak(&self, id: u64, text: &str) {
        let Some((nick, room)) = self.state().members.get(&id).map(|m| (m.nick.clone(), m.room.clone())) else {
            return;
        };
        if let Some(way_in) = self.way_into(&room) {
            STATS.messages.fetch_add(1, Relaxed);
            let _ = way_in.send(format!("<{nick}> {text}\r\n").into());
        }
    }

    fn wires(&self, room: &str) -> Vec<Arc<Wire>> {
        self.state().members.values().filter(|m| m.room == room).map(|m| m.wire.clone()).collect()
    }

    fn rename(&self, id: u64, new: &str) -> Result<(), String> {
        check_name(new)?;
        let mut state = self.state();
        if state.members.iter().any(|(other, m)| *other != id && m.nick == new) {
            return Err(format!("somebody else is {new}"));
        }
        let Some(me) = state.members.get_mut(&id) else { return Ok(()) };
        let (old, room) = (std::mem::replace(&mut me.nick, new.to_owned()), me.room.clone());
        drop(state);
        self.tell(&room, &format!("* {old} is now {new}"));
        Ok(())
    }

    fn go_to(self: &Arc<Hall>, id: u64, new: &str) -> Result<(), String> {
        check_name(new)?;
        self.open(new).map_err(|e| e.to_string())?;
        let mut state = self.state();
        let State { members, rooms, .. } = &mut *state;
        // Somebody else may have been the last to leave it in between.
        let (Some(me), true) = (members.get_mut(&id), rooms.contains_key(new)) else {
            return Err(format!("{new} was just closed; try again"));
        };
        let (nick, old) = (me.nick.clone(), std::mem::replace(&mut me.room, new.to_owned()));
        drop(state);
        self.tell(&old, &format!("* {nick} went to {new}"));
        self.close_if_empty(&old);
        self.tell(new, &format!("* {nick} came from {old}"));
        Ok(())
    }

    fn who(&self) -> String {
        let state = self.state();
        let mut out = String::new();
        for room in state.rooms.keys() {
            let names: Vec<_> = state.members.values().filter(|m| m.room == *room).map(|m| m.nick.as_str()).collect();
            let shown = &names[..names.len().min(NAMES_SHOWN)];
            let more = names.len() - shown.len();
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            out += &format!("* {room}: {}{more}\n", if shown.is_empty() { "nobody".into() } else { shown.join(" ") });
        }
        out
    }
}

fn check_name(name: &str) -> Result<(), String> {
    let fits = (1..=LONGEST_NAME).contains(&name.len());
    if fits && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
        return Ok(());
    }
    Err(format!("a name has 1 to {LONGEST_NAME} letters, digits, - or _"))
}

/// Hands what is said in a room, by clients of this worker, to all its members.
#[inline(never)]
fn room_writer(hall: &Hall, room: &str, lines: &Receiver<Text>) {
    while let Ok(line) = lines.recv() {
        for wire in hall.wires(room) {
            wire.post(line.clone());
        }
    }
}

// ---- one client ----

/// Takes the client out of the hall however its task ends.
struct Seat<'a> {
    hall: &'a Arc<Hall>,
    id: u64,
    wire: Arc<Wire>,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.hall.leave(self.id);
    }
}

impl Seat<'_> {
    fn reply(&self, text: &str) {
        self.wire.post(format!("{}\r\n", text.replace('\n', "\r\n")).into());
    }
}

#[inline(never)]
fn client(hall: &Arc<Hall>, socket: TcpStream, peer: SocketAddr) {
    STATS.clients.fetch_add(1, Relaxed);
    let _ = socket.set_nodelay(true);
    let (queue, lines) = sync_channel_named("lines to a client", QUEUE);
    let (socket, dropped) = (Arc::new(socket), Arc::new(AtomicBool::new(false)));
    let (to_write, slow) = (socket.clone(), dropped.clone());
    // Local: on a worker of its own choice it could be stuck behind somebody else's `/block`.
    let writer = coro::Builder::new().name(format!("writer {peer}"));
    if let Err(e) = writer.spawn_local(move || client_writer(&lines, &to_write, &slow)) {
        coro::print_stderr(format!("no writer for client {peer}: {e}"));
        return;
    }
    let wire = Arc::new(Wire { queue, socket: socket.clone(), dropped });
    let seat = Seat { hall, id: hall.enter(wire.clone()), wire };
    seat.reply(&format!("* welcome, guest{}; /help shows what there is", seat.id));
    hall.tell(LOBBY, &format!("* guest{} came", seat.id));
    let mut lines = Lines::new(&*socket);
    loop {
        match lines.next_line() {
            Ok(Some(_)) if seat.wire.dropped.load(Relaxed) => return,
            Ok(Some(line)) => {
                if line.cut {
                    seat.reply(&format!("* your line was cut after {LONGEST_LINE} bytes"));
                }
                if !obey(&seat, line.text.trim()) {
                    seat.reply("* goodbye");
                    return;
                }
            }
            Err(_) if coro::stopping() => return seat.wire.post_now("* the server stops\r\n"),
            Ok(None) | Err(_) => return,
        }
    }
}

/// Whether the client stays.
#[cfg_attr(feature = "probe", coro::probe(skip(seat)))]
fn obey(seat: &Seat<'_>, line: &str) -> bool {
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim();
    let answer = match word {
        "" => return true,
        "/quit" => return false,
        "/help" => Err(HELP.to_owned()),
        "/who" => Err(seat.hall.who().trim_end().to_owned()),
        "/nick" => seat.hall.rename(seat.id, rest).map_err(|e| format!("* {e}")),
        "/join" => seat.hall.go_to(seat.id, rest).map_err(|e| format!("* {e}")),
        "/hog" => wedge(seat, "computing", rest, hog),
        "/block" => wedge(seat, "sleeping", rest, block),
        "/panic" => {
            seat.reply("* your task panics now; nobody else's does");
            blow_up(seat.id)
        }
        _ if word.starts_with('/') => Err(format!("* {word} is no command; /help shows what there is")),
        _ => {
            seat.hall.speak(seat.id, line);
            Ok(())
        }
    };
    if let Err(text) = answer {
        seat.reply(&text);
    }
    true
}

fn wedge(seat: &Seat<'_>, how: &str, seconds: &str, with: fn(Duration)) -> Result<(), String> {
    let Some(seconds) = util::parse::<u64>(seconds, &(1..=600)) else {
        return Err("* for how many seconds? 1 to 600".to_owned());
    };
    let worker = coro::current_worker().unwrap_or_default();
    seat.reply(&format!("* {how} for {seconds} s on worker {worker}: now look with where_all"));
    // The one who asked shall still read that: its writer is of this worker.
    coro::yield_slice();
    with(Duration::from_secs(seconds));
    Err("* done".to_owned())
}

/// Computes without ever giving way.
#[inline(never)]
fn hog(how_long: Duration) {
    let begun = Instant::now();
    let mut n = 27u64;
    while begun.elapsed() < how_long {
        for _ in 0..100_000 {
            n = black_box(if n.is_multiple_of(2) { n / 2 } else { 3 * n + 1 });
        }
    }
}

/// Sleeps as a thread, not as a task: the mistake that stops a worker.
#[inline(never)]
fn block(how_long: Duration) {
    std::thread::sleep(how_long);
}

#[inline(never)]
fn blow_up(id: u64) -> ! {
    panic!("client {id} asked for it")
}

/// Writes what waits for a client until nobody can send it any more.
#[inline(never)]
fn client_writer(lines: &Receiver<Text>, mut socket: &TcpStream, dropped: &AtomicBool) {
    let mut out = Vec::new();
    while let Ok(line) = lines.recv() {
        out.clear();
        out.extend_from_slice(line.as_bytes());
        while out.len() < 16 * 1024
            && let Ok(line) = lines.try_recv()
        {
            out.extend_from_slice(line.as_bytes());
        }
        match coro::timeout(WRITE_PATIENCE, || socket.write_all(&out)) {
            Ok(Ok(())) => {}
            // The reading task says the last word.
            Ok(Err(_)) if coro::is_cancelled() => return,
            Ok(Err(_)) => break,
            Err(_) => {
                if !dropped.swap(true, Relaxed) {
                    STATS.slow.fetch_add(1, Relaxed);
                }
                break;
            }
        }
    }
    if dropped.load(Relaxed) {
        let _ = coro::timeout(WRITE_PATIENCE, || socket.write_all(b"* you read too slowly and were dropped\r\n"));
    }
    // Also ends the reading task, should it still be there.
    let _ = socket.shutdown(Shutdown::Both);
}

// ---- bots ----

/// Socket bots need two descriptors each, and clients want some as well.
const SOCKET_BOTS: usize = 256;

fn spawn_bots(n: usize) -> io::Result<()> {
    let key = Arc::new(coro::sync::Mutex::new(0).named("key of the bots"));
    let (mut boxes, mut sockets) = (Vec::new(), Vec::new());
    for i in 0..n {
        let bot = |kind: &str| coro::Builder::new().name(format!("bot {i} {kind}"));
        let out_of_sockets = sockets.len() >= SOCKET_BOTS;
        match i % 4 {
            1 => {
                let key = key.clone();
                bot("locker").spawn(move || bot_locker(&key))?;
            }
            2 => {
                let (sender, messages) = channel_named("post");
                boxes.push(sender);
                bot("receiver").spawn(move || bot_receiver(&messages))?;
            }
            3 if !out_of_sockets => {
                let (near, far) = UnixStream::pair()?;
                sockets.push(near);
                bot("reader").spawn(move || bot_reader(&far))?;
            }
            _ => _ = bot("sleeper").spawn(move || bot_sleeper(Duration::from_secs(1 + i as u64 % 10)))?,
        }
    }
    if n > 0 {
        coro::Builder::new().name("bot postman").spawn(move || bot_postman(&boxes, &sockets))?;
    }
    Ok(())
}

#[inline(never)]
fn bot_sleeper(nap: Duration) {
    loop {
        coro::sleep(nap);
    }
}

/// All want the same key, and who has it keeps it for a while.
#[inline(never)]
fn bot_locker(key: &coro::sync::Mutex<u64>) {
    loop {
        let mut turns = key.lock().unwrap_or_else(PoisonError::into_inner);
        *turns += 1;
        coro::sleep(Duration::from_millis(300));
        drop(turns);
        // While a task holds a lock it is not cancelled; here it can be.
        coro::sleep(Duration::from_millis(50));
    }
}

#[inline(never)]
fn bot_receiver(messages: &Receiver<u64>) {
    while let Ok(number) = messages.recv() {
        black_box(number);
    }
}

#[inline(never)]
fn bot_reader(mut socket: &UnixStream) {
    let mut byte = [0];
    while matches!(socket.read(&mut byte), Ok(1)) {}
}

/// Brings one message and one byte a second, to each in turn.
#[inline(never)]
fn bot_postman(boxes: &[Sender<u64>], sockets: &[UnixStream]) {
    for round in 0.. {
        coro::sleep(Duration::from_secs(1));
        let nth = |n: usize| (n > 0).then(|| round % n);
        if let Some(at) = nth(boxes.len()) {
            deliver(&boxes[at], at, round as u64);
        }
        if let Some(at) = nth(sockets.len()) {
            let _ = (&sockets[at]).write(&[1]);
        }
    }
}

/// Something that happens every second, for who wants to watch: `probe attach deliver log`.
#[cfg_attr(feature = "probe", coro::probe(skip(mailbox)))]
fn deliver(mailbox: &Sender<u64>, _number: usize, letter: u64) -> bool {
    mailbox.send(letter).is_ok()
}

// ---- what is counted ----

struct Stats {
    clients: AtomicU64,
    messages: AtomicU64,
    slow: AtomicU64,
    panics: AtomicU64,
    /// The longest time for which a worker did not run its stall meter though it was due.
    longest_stall_us: AtomicU64,
    printed: AtomicBool,
}

static STATS: Stats = Stats {
    clients: AtomicU64::new(0),
    messages: AtomicU64::new(0),
    slow: AtomicU64::new(0),
    panics: AtomicU64::new(0),
    longest_stall_us: AtomicU64::new(0),
    printed: AtomicBool::new(false),
};

/// When each worker's stall meter is to wake up next.
static DUE: Mutex<BTreeMap<usize, Instant>> = Mutex::new(BTreeMap::new());

fn set_due(worker: usize, next: Option<Instant>) {
    let mut due = DUE.lock().unwrap_or_else(PoisonError::into_inner);
    let last = due.remove(&worker);
    due.extend(next.map(|at| (worker, at)));
    drop(due);
    if let Some(last) = last {
        overdue(last);
    }
}

fn overdue(due: Instant) {
    let late = Instant::now().saturating_duration_since(due);
    STATS.longest_stall_us.fetch_max(late.as_micros() as u64, Relaxed);
}

/// One on each worker: notices how late it wakes up.
#[inline(never)]
fn stall_meter(worker: usize) {
    /// Also when the sleep is cut short by the end.
    struct Ended(usize);
    impl Drop for Ended {
        fn drop(&mut self) {
            set_due(self.0, None);
        }
    }
    let _ended = Ended(worker);
    loop {
        let due = Instant::now() + Duration::from_millis(100);
        set_due(worker, Some(due));
        coro::sleep_until(due);
    }
}

fn summary() {
    if STATS.printed.swap(true, Relaxed) {
        return;
    }
    // Workers that are still stuck.
    DUE.lock().unwrap_or_else(PoisonError::into_inner).values().copied().for_each(overdue);
    let stall = Duration::from_micros(STATS.longest_stall_us.load(Relaxed));
    say(&format!(
        "\nclients served        {}\nlines said            {}\nslow readers dropped  {}\ntasks that panicked   {}\nlongest stall         {:.3} s",
        STATS.clients.load(Relaxed),
        STATS.messages.load(Relaxed),
        STATS.slow.load(Relaxed),
        STATS.panics.load(Relaxed),
        stall.as_secs_f64()
    ));
}

/// If the worker of the main task is wedged, nothing is left but the runtime's `exit` after five seconds: then this
/// thread has told the summary before.
fn summary_of_a_wedged_end() {
    while !coro::stopping() {
        std::thread::sleep(Duration::from_millis(100));
    }
    std::thread::sleep(Duration::from_millis(4500));
    summary();
}
