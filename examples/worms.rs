//! Worms: every worm is a task that crawls over one field and gets out of the others' way; every telnet client that connects
//! watches: `cargo run --release --example worms`, then `telnet 127.0.0.1 9100` in several windows.
//!
//! A viewer types `+` and `-` for more and fewer worms, `q` to leave. The field is behind a lock, viewers are sent what has
//! changed since their last picture. Look in through the backdoor meanwhile: `count`, `objects`, `where_all`.
//!
//! After the example of that name in Shrapnel, IronPort's library for Python.

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use coro::net::{TcpListener, TcpStream};
use coro::sync::Mutex;

mod util;

const USAGE: &str = "usage: worms [--addr HOST:PORT] [--worms N] [--backdoor PATH]
  --addr HOST:PORT   where viewers connect (default 127.0.0.1:9100; port 0 is any free one)
  --worms N          how many there are at first (default 12)
  --backdoor PATH    the backdoor's socket (default in a private directory)";

const WIDTH: usize = 76;
const HEIGHT: usize = 21;
const LENGTH: usize = 12;
const MOST: usize = 200;
const FRAME: Duration = Duration::from_millis(60);
/// A viewer that takes nothing for so long is gone.
const PATIENCE: Duration = Duration::from_secs(5);

/// What stands at each place; a space is nothing.
struct Field([u8; WIDTH * HEIGHT]);

struct World {
    field: Mutex<Field>,
    wanted: AtomicUsize,
    alive: AtomicUsize,
    born: AtomicU64,
}

/// A place, and which way: 0 right, 1 down, 2 left, 3 up.
#[derive(Clone, Copy, PartialEq)]
struct Place(usize, usize);

impl Place {
    fn index(self) -> usize {
        self.1 * WIDTH + self.0
    }

    fn ahead(self, way: usize) -> Option<Place> {
        let x = self.0.wrapping_add([1, 0, usize::MAX, 0][way]);
        let y = self.1.wrapping_add([0, 1, 0, usize::MAX][way]);
        (x < WIDTH && y < HEIGHT).then_some(Place(x, y))
    }
}

/// Numbers that differ from worm to worm: xorshift64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }
}

/// One worm's life: until there are too many of them, or it cannot move.
#[inline(never)]
fn crawl(world: &World, number: u64) {
    let mut dice = Dice(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let look = b"abcdefghijklmnopqrstuvwxyz"[number as usize % 26];
    let pace = Duration::from_millis(40 + dice.below(80) as u64);
    let mut body = vec![Place(dice.below(WIDTH), dice.below(HEIGHT))];
    let mut way = dice.below(4);
    while world.alive.load(Ordering::Relaxed) <= world.wanted.load(Ordering::Relaxed)
        && step(world, &mut body, &mut way, &mut dice, look)
    {
        coro::sleep(pace);
    }
    let mut field = world.field.lock().unwrap();
    body.iter().for_each(|place| field.0[place.index()] = b' ');
}

/// False when there is no way out.
fn step(world: &World, body: &mut Vec<Place>, way: &mut usize, dice: &mut Dice, look: u8) -> bool {
    let mut field = world.field.lock().unwrap();
    if dice.below(10) == 0 {
        *way = dice.below(4);
    }
    let head = *body.last().expect("a worm has a head");
    let turn = 1 + 2 * dice.below(2);
    for _ in 0..4 {
        if let Some(next) = head.ahead(*way).filter(|next| field.0[next.index()] == b' ') {
            field.0[head.index()] = look;
            field.0[next.index()] = look.to_ascii_uppercase();
            body.push(next);
            if body.len() > LENGTH {
                field.0[body.remove(0).index()] = b' ';
            }
            return true;
        }
        *way = (*way + turn) % 4;
    }
    false
}

/// Keeps as many worms alive as are wanted.
#[inline(never)]
fn breed(world: &Arc<World>) {
    loop {
        while world.alive.load(Ordering::Relaxed) < world.wanted.load(Ordering::Relaxed) {
            let number = world.born.fetch_add(1, Ordering::Relaxed) + 1;
            world.alive.fetch_add(1, Ordering::Relaxed);
            let of = world.clone();
            let born = coro::Builder::new().name(format!("worm {number}")).class("worm").spawn(move || {
                crawl(&of, number);
                of.alive.fetch_sub(1, Ordering::Relaxed);
            });
            if let Err(problem) = born {
                world.alive.fetch_sub(1, Ordering::Relaxed);
                coro::print_stderr(format!("no worm: {problem}"));
                break;
            }
        }
        coro::sleep(Duration::from_millis(100));
    }
}

/// Sends pictures until the viewer goes.
#[inline(never)]
fn watch(world: &World, mut viewer: TcpStream) -> io::Result<()> {
    viewer.set_write_timeout(Some(PATIENCE))?;
    viewer.set_nodelay(true)?;
    // Telnet: the server echoes and suppresses go-ahead, so that keys come one by one. Then an empty screen, no cursor.
    viewer.write_all(b"\xff\xfb\x01\xff\xfb\x03\x1b[2J\x1b[?25l")?;
    let mut shown = [0; WIDTH * HEIGHT];
    loop {
        let now = world.field.lock().unwrap().0;
        let mut picture = Vec::new();
        for y in 0..HEIGHT {
            let mut x = 0;
            while x < WIDTH {
                if now[y * WIDTH + x] == shown[y * WIDTH + x] {
                    x += 1;
                    continue;
                }
                let _ = write!(picture, "\x1b[{};{}H", y + 1, x + 1);
                while x < WIDTH && now[y * WIDTH + x] != shown[y * WIDTH + x] {
                    picture.push(now[y * WIDTH + x]);
                    x += 1;
                }
            }
        }
        let (alive, born) = (world.alive.load(Ordering::Relaxed), world.born.load(Ordering::Relaxed));
        let _ = write!(picture, "\x1b[{};1H{alive} worms, {born} so far; + more, - fewer, q leaves  ", HEIGHT + 2);
        viewer.write_all(&picture)?;
        shown = now;
        coro::sleep(FRAME);
    }
}

fn change(number: &AtomicUsize, change: impl Fn(usize) -> usize) {
    let _ = number.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| Some(change(n)));
}

/// One viewer: a task that sends, and this one, which waits for keys.
#[inline(never)]
fn serve_viewer(world: &Arc<World>, mut keys: TcpStream) -> io::Result<()> {
    let (of, pictures) = (world.clone(), keys.try_clone()?);
    let watcher = coro::spawn_named("watcher", move || watch(&of, pictures));
    let mut read = [0; 64];
    // Of a telnet command, 255 and two more bytes, so many are still to come.
    let mut command = 0;
    'viewing: loop {
        let n = keys.read(&mut read)?;
        if n == 0 {
            break;
        }
        for key in &read[..n] {
            match key {
                _ if command > 0 => command -= 1,
                255 => command = 2,
                b'+' => change(&world.wanted, |n| (n + 1).min(MOST)),
                b'-' => change(&world.wanted, |n| n.saturating_sub(1)),
                b'q' | 3 | 4 => break 'viewing,
                _ => {}
            }
        }
    }
    watcher.cancel();
    let _ = watcher.join();
    // The cursor again, below the picture.
    keys.write_all(format!("\x1b[?25h\x1b[{};1H\r\n", HEIGHT + 2).as_bytes())
}

fn serve(o: &Options) -> io::Result<()> {
    let named = |e: io::Error| io::Error::new(e.kind(), format!("--addr {}: {e}", o.addr));
    let listener = TcpListener::bind(o.addr.as_str()).map_err(named)?;
    let backdoor = match &o.backdoor {
        Some(path) => coro::backdoor::serve(path)?,
        None => coro::backdoor::serve_default()?,
    };
    let world = Arc::new(World {
        field: Mutex::new(Field([b' '; WIDTH * HEIGHT])).named("field"),
        wanted: AtomicUsize::new(o.worms),
        alive: AtomicUsize::new(0),
        born: AtomicU64::new(0),
    });
    let of = world.clone();
    coro::spawn_named("breeder", move || breed(&of));
    let address = listener.local_addr()?;
    let _ =
        writeln!(io::stdout(), "telnet {} {}\nbackdoor on {}", address.ip(), address.port(), backdoor.path().display());
    loop {
        match listener.accept() {
            Ok((viewer, peer)) => {
                let of = world.clone();
                let spawned = coro::Builder::new().name(format!("viewer {peer}")).class("viewer").spawn(move || {
                    // A viewer that goes away is no news.
                    let _ = serve_viewer(&of, viewer);
                });
                if let Err(e) = spawned {
                    coro::print_stderr(format!("no task for {peer}: {e}"));
                }
            }
            // The wait that follows unwinds this task.
            Err(e) => {
                if !coro::is_cancelled() {
                    coro::print_stderr(format!("accept: {e}"));
                }
                coro::sleep(Duration::from_millis(100));
            }
        }
    }
}

struct Options {
    addr: String,
    worms: usize,
    backdoor: Option<PathBuf>,
}

fn options() -> Result<Option<Options>, String> {
    use lexopt::prelude::{Long, Short};
    let mut parser = lexopt::Parser::from_env();
    let mut o = Options { addr: "127.0.0.1:9100".to_owned(), worms: 12, backdoor: None };
    while let Some(arg) = parser.next().map_err(|e| e.to_string())? {
        match arg {
            Long("addr") => o.addr = util::text(&mut parser, "--addr")?,
            Long("worms") => o.worms = util::number(&mut parser, "--worms", 0..=MOST)?,
            Long("backdoor") => o.backdoor = Some(util::path(&mut parser, "--backdoor")?),
            Long("help") | Short('h') => return Ok(None),
            other => return Err(other.unexpected().to_string()),
        }
    }
    Ok(Some(o))
}

fn main() -> ExitCode {
    util::main("worms", USAGE, options(), |options| coro::run(|| serve(&options)).map(|()| ExitCode::SUCCESS))
}
