//! The table of sockets: which there are, between which addresses, who opened them, and what went through.
//!
//! By descriptor number (`SLOTS`) one word leads to the record of a socket (`RECORDS`). Clones lead to the same record.
//! Everything here is atomic words that are never unmapped, so views read it without a lock while sockets come and go, and
//! whoever makes or closes a socket waits for nobody.
//!
//! **Which socket.** Each record is given a serial number when it is taken. The word of a slot holds it, and so does the
//! wait reason of whoever waits on the descriptor: a number that was closed and given again is never taken for the
//! socket that had it before. A slot is emptied *before* its descriptor is closed. So a view that asks the kernel about a
//! descriptor, and finds the same word in its slot before and after, asked about that socket.
//!
//! **Reading a record.** `life` holds the serial number and the count of handles; it is read before and after the other
//! fields. What changes during a life (addresses) is guarded by `changes`, which is odd meanwhile.
//!
//! Must not know: who looks, or what is done with it. On purpose not here: what the kernel can be asked when
//! somebody looks, such as the state of a connection.

#![forbid(unsafe_code)]

use std::os::fd::RawFd;
use std::panic::Location;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering, fence};

use super::endpoint::{Endpoint, Words};
use crate::reactor::Direction;
use crate::scheduler;
use crate::sys::line::Line;
use crate::sys::statics::AtomicStatic;

/// What a socket is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    TcpListener = 0,
    TcpStream,
    Udp,
    UnixListener,
    UnixStream,
    UnixDatagram,
    /// Ends of pipes, and those that belong to a child process. Not of `net`, but they wait in the same way.
    PipeReader,
    PipeWriter,
    ChildStdin,
    ChildStdout,
    ChildStderr,
}

impl Kind {
    fn from_byte(b: u8) -> Kind {
        match b {
            0 => Kind::TcpListener,
            1 => Kind::TcpStream,
            2 => Kind::Udp,
            3 => Kind::UnixListener,
            4 => Kind::UnixStream,
            6 => Kind::PipeReader,
            7 => Kind::PipeWriter,
            8 => Kind::ChildStdin,
            9 => Kind::ChildStdout,
            10 => Kind::ChildStderr,
            _ => Kind::UnixDatagram,
        }
    }

    /// Of what a listener accepts.
    pub(super) fn accepted(self) -> Kind {
        if self == Kind::TcpListener { Kind::TcpStream } else { Kind::UnixStream }
    }

    /// What stands between a descriptor and the process at its other end; `None` for sockets.
    pub(crate) fn pipe_word(self) -> Option<&'static str> {
        match self {
            Kind::PipeReader | Kind::PipeWriter => Some("pipe"),
            Kind::ChildStdin => Some("child stdin"),
            Kind::ChildStdout => Some("child stdout"),
            Kind::ChildStderr => Some("child stderr"),
            _ => None,
        }
    }

    pub(crate) fn is_unix(self) -> bool {
        matches!(self, Kind::UnixListener | Kind::UnixStream | Kind::UnixDatagram)
    }

    pub(crate) fn is_listener(self) -> bool {
        matches!(self, Kind::TcpListener | Kind::UnixListener)
    }
}

/// What is known of a socket when it is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Opened {
    pub(crate) kind: Kind,
    pub(crate) site: &'static Location<'static>,
    pub(crate) local: Endpoint,
    pub(crate) peer: Endpoint,
    /// Connections that may wait in the kernel; 0: not known.
    pub(crate) backlog: u32,
}

impl Opened {
    pub(crate) fn new(kind: Kind, site: &'static Location<'static>) -> Opened {
        Opened { kind, site, local: Endpoint::None, peer: Endpoint::None, backlog: 0 }
    }
}

/// One socket: two cache lines.
#[derive(Debug)]
#[repr(align(64))]
struct Record {
    // First line: written by reading and writing.
    /// Bytes in and out; of a listener: connections accepted.
    traffic: [AtomicU64; 2],
    /// When something was last done with it, in ticks.
    active: AtomicU64,
    /// Serial number (upper half) and handles; no handle: free.
    life: AtomicU64,
    opened: AtomicU64,
    opener: AtomicU64,
    site: AtomicStatic<Location<'static>>,
    /// Odd while the addresses are changed.
    changes: AtomicU32,
    /// Link of the free list: index + 1.
    next: AtomicU32,
    // Second line: written when made and connected.
    local: Words,
    peer: Words,
    backlog: AtomicU32,
    kind: AtomicU8,
}

const _: () = assert!(size_of::<Record>() == 128);

impl Record {
    const fn new() -> Record {
        Record {
            traffic: [const { AtomicU64::new(0) }; 2],
            active: AtomicU64::new(0),
            life: AtomicU64::new(0),
            opened: AtomicU64::new(0),
            opener: AtomicU64::new(0),
            site: AtomicStatic::empty(),
            changes: AtomicU32::new(0),
            next: AtomicU32::new(0),
            local: Words::new(),
            peer: Words::new(),
            backlog: AtomicU32::new(0),
            kind: AtomicU8::new(0),
        }
    }

    fn set_endpoints(&self, local: Endpoint, peer: Endpoint) {
        // Two of them at once are two tasks that connect one datagram socket; the turns are a few stores long.
        let mut before = self.changes.load(Ordering::Relaxed) & !1;
        while let Err(now) = self.changes.compare_exchange(before, before + 1, Ordering::Acquire, Ordering::Relaxed) {
            if now & 1 != 0 {
                if crate::sys::fork::forked() {
                    return; // Whoever was at it may exist in the parent only.
                }
                std::thread::yield_now();
            }
            before = now & !1;
        }
        fence(Ordering::Release);
        self.local.set(local);
        self.peer.set(peer);
        self.changes.store(before.wrapping_add(2), Ordering::Release);
    }

    fn endpoints(&self) -> (Endpoint, Endpoint) {
        // A writer that is not running now is waited for a few times; then there are no addresses to show.
        for _ in 0..10 {
            let before = self.changes.load(Ordering::Acquire);
            let seen = (self.local.get(), self.peer.get());
            fence(Ordering::Acquire);
            if before & 1 == 0 && self.changes.load(Ordering::Relaxed) == before {
                return seen;
            }
            std::thread::yield_now();
        }
        (Endpoint::None, Endpoint::None)
    }

    /// A copy, if the record is still that of the socket with this serial number.
    fn look(&self, serial: u32) -> Option<Seen> {
        let same = |life: u64| (life >> 32) as u32 == serial && life as u32 > 0;
        if !same(self.life.load(Ordering::Acquire)) {
            return None;
        }
        let (local, peer) = self.endpoints();
        let seen = Seen {
            serial,
            kind: Kind::from_byte(self.kind.load(Ordering::Relaxed)),
            local,
            peer,
            backlog: self.backlog.load(Ordering::Relaxed),
            opened: self.opened.load(Ordering::Relaxed),
            active: self.active.load(Ordering::Relaxed),
            traffic: [0, 1].map(|d| self.traffic[d].load(Ordering::Relaxed)),
            opener: self.opener.load(Ordering::Relaxed),
            site: self.site.get(),
        };
        fence(Ordering::Acquire);
        same(self.life.load(Ordering::Relaxed)).then_some(seen)
    }
}

/// What a record said.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    /// The same for all clones of one socket, and for no other socket.
    pub(crate) serial: u32,
    pub(crate) kind: Kind,
    pub(crate) local: Endpoint,
    pub(crate) peer: Endpoint,
    pub(crate) backlog: u32,
    pub(crate) opened: u64,
    pub(crate) active: u64,
    pub(crate) traffic: [u64; 2],
    pub(crate) opener: u64,
    pub(crate) site: Option<&'static Location<'static>>,
}

const SLOTS_EACH: usize = 1024;
/// Descriptors with larger numbers are not listed; Linux gives none beyond 1,048,576 unless it is told to.
const SLOT_CHUNKS: usize = 4096;
const RECORDS_EACH: usize = 128;
const RECORD_CHUNKS: usize = 32768;

type SlotChunk = Box<[AtomicU64]>;
type RecordChunk = Box<[Record]>;

/// By descriptor; serial number (upper half) and index of the record + 1; 0: none.
static SLOTS: [AtomicStatic<SlotChunk>; SLOT_CHUNKS] = [const { AtomicStatic::empty() }; SLOT_CHUNKS];
static RECORDS: [AtomicStatic<RecordChunk>; RECORD_CHUNKS] = [const { AtomicStatic::empty() }; RECORD_CHUNKS];
/// Records that were ever used.
static USED: Line<AtomicU32> = Line::new(AtomicU32::new(0));
/// The free list: a count of changes (upper half), so that no two states look the same, and the first index + 1.
static FREE: Line<AtomicU64> = Line::new(AtomicU64::new(0));
static SERIAL: Line<AtomicU32> = Line::new(AtomicU32::new(1));
/// For sockets beyond four million: counted into, never shown.
static NOBODY: Record = Record::new();

fn record(index: u32) -> Option<&'static Record> {
    let chunk = RECORDS.get(index as usize / RECORDS_EACH)?.get()?;
    chunk.get(index as usize % RECORDS_EACH)
}

fn slot(fd: RawFd) -> Option<&'static AtomicU64> {
    let fd = usize::try_from(fd).ok()?;
    SLOTS.get(fd / SLOTS_EACH)?.get()?.get(fd % SLOTS_EACH)
}

fn slot_to_fill(fd: RawFd) -> Option<&'static AtomicU64> {
    let fd = usize::try_from(fd).ok()?;
    let chunk = SLOTS.get(fd / SLOTS_EACH)?;
    chunk.get_or_fill(|| (0..SLOTS_EACH).map(|_| AtomicU64::new(0)).collect()).get(fd % SLOTS_EACH)
}

/// A record that is nobody's, and its index.
fn take_record() -> Option<(u32, &'static Record)> {
    let mut head = FREE.load(Ordering::Acquire);
    while head as u32 != 0 {
        let index = head as u32 - 1;
        let record = record(index)?;
        // Whatever this reads, it is used only if the list has not changed.
        let next = u64::from(record.next.load(Ordering::Relaxed));
        let new = ((head >> 32).wrapping_add(1) << 32) | next;
        match FREE.compare_exchange_weak(head, new, Ordering::Acquire, Ordering::Acquire) {
            Ok(_) => return Some((index, record)),
            Err(now) => head = now,
        }
    }
    let all = (RECORDS_EACH * RECORD_CHUNKS) as u32;
    let index = USED.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < all).then_some(n + 1)).ok()?;
    let chunk =
        RECORDS[index as usize / RECORDS_EACH].get_or_fill(|| (0..RECORDS_EACH).map(|_| Record::new()).collect());
    Some((index, &chunk[index as usize % RECORDS_EACH]))
}

fn give_back(index: u32, record: &Record) {
    let mut head = FREE.load(Ordering::Relaxed);
    loop {
        record.next.store(head as u32, Ordering::Relaxed);
        let new = ((head >> 32).wrapping_add(1) << 32) | u64::from(index + 1);
        match FREE.compare_exchange_weak(head, new, Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) => return,
            Err(now) => head = now,
        }
    }
}

/// A socket's place in the table, one per handle.
#[derive(Debug)]
pub(super) struct Entry {
    record: &'static Record,
    /// As in the slot.
    word: u64,
}

impl Entry {
    /// For a new socket.
    pub(super) fn new(fd: RawFd, what: &Opened) -> Entry {
        let Some((index, record)) = take_record() else { return Entry { record: &NOBODY, word: 0 } };
        let serial = loop {
            match SERIAL.fetch_add(1, Ordering::Relaxed) {
                0 => {}
                n => break n,
            }
        };
        let now = scheduler::io::now_ticks();
        // Before any of the rest can be seen, `life` must be seen without handles; whoever freed it stored that.
        fence(Ordering::Release);
        record.traffic.iter().for_each(|t| t.store(0, Ordering::Relaxed));
        record.active.store(now, Ordering::Relaxed);
        record.opened.store(now, Ordering::Relaxed);
        record.opener.store(scheduler::current().map_or(0, |t| t.id()), Ordering::Relaxed);
        record.site.set(Some(what.site));
        record.kind.store(what.kind as u8, Ordering::Relaxed);
        record.backlog.store(what.backlog, Ordering::Relaxed);
        record.local.set(what.local);
        record.peer.set(what.peer);
        record.life.store(u64::from(serial) << 32 | 1, Ordering::Release);
        let entry = Entry { record, word: u64::from(serial) << 32 | u64::from(index + 1) };
        entry.enter(fd);
        entry
    }

    /// For a further descriptor of the same socket.
    pub(super) fn share(&self, fd: RawFd) -> Entry {
        Entry::of(self.word, fd).unwrap_or(Entry { record: &NOBODY, word: 0 })
    }

    /// For a further descriptor of the socket with that [`word`](Entry::word), if a handle of it is alive.
    pub(super) fn of(word: u64, fd: RawFd) -> Option<Entry> {
        let record = record((word as u32).checked_sub(1)?)?;
        let mut life = record.life.load(Ordering::Relaxed);
        loop {
            if life >> 32 != word >> 32 || life as u32 == 0 {
                return None;
            }
            match record.life.compare_exchange_weak(life, life + 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => break,
                Err(now) => life = now,
            }
        }
        let entry = Entry { record, word };
        entry.enter(fd);
        Some(entry)
    }

    fn enter(&self, fd: RawFd) {
        if let Some(slot) = slot_to_fill(fd) {
            slot.store(self.word, Ordering::Release);
        }
    }

    /// Before `fd` is closed or given away: it is no longer this socket's.
    pub(super) fn leave(&self, fd: RawFd) {
        if let Some(slot) = slot(fd) {
            // Empty already after `close`, and then perhaps another's.
            let _ = slot.compare_exchange(self.word, 0, Ordering::AcqRel, Ordering::Relaxed);
        }
    }

    /// Names the socket among all, for [`Entry::of`].
    pub(super) fn word(&self) -> u64 {
        self.word
    }

    pub(super) fn serial(&self) -> u32 {
        (self.word >> 32) as u32
    }

    pub(super) fn kind(&self) -> Kind {
        Kind::from_byte(self.record.kind.load(Ordering::Relaxed))
    }

    pub(super) fn local(&self) -> Endpoint {
        self.record.endpoints().0
    }

    pub(super) fn peer(&self) -> Endpoint {
        self.record.endpoints().1
    }

    pub(super) fn set_endpoints(&self, local: Endpoint, peer: Endpoint) {
        self.record.set_endpoints(local, peer);
    }

    /// Fetches what [`count`](Entry::count) writes, for whoever is about to ask the system for bytes: with many connections
    /// it was last touched long ago, and comes while the system works.
    #[inline(always)]
    pub(super) fn prefetch(&self) {
        if crate::observe::ON {
            crate::sys::prefetch(std::ptr::from_ref(self.record).cast());
        }
    }

    /// So many bytes went through, at about that time (in ticks).
    #[inline(always)]
    pub(super) fn count(&self, d: Direction, n: usize, at: u64) {
        if crate::observe::ON {
            self.record.traffic[d as usize].fetch_add(n as u64, Ordering::Relaxed);
            self.record.active.store(at, Ordering::Relaxed);
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if self.word == 0 {
            return;
        }
        let before = self.record.life.fetch_sub(1, Ordering::AcqRel);
        if before as u32 == 1 {
            give_back(self.word as u32 - 1, self.record);
        }
    }
}

fn look(word: u64) -> Option<Seen> {
    record((word as u32).checked_sub(1)?)?.look((word >> 32) as u32)
}

/// The socket that has the descriptor `fd` now.
pub(crate) fn at(fd: RawFd) -> Option<Seen> {
    look(slot(fd)?.load(Ordering::Acquire))
}

/// The socket with that serial number, if it still has that descriptor.
pub(crate) fn find(fd: RawFd, serial: u32) -> Option<Seen> {
    at(fd).filter(|seen| seen.serial == serial)
}

/// Every descriptor that is a socket of `net`, in order.
pub(crate) fn all() -> impl Iterator<Item = (RawFd, Seen)> {
    let chunks = SLOTS.iter().enumerate().filter_map(|(c, chunk)| Some((c, chunk.get()?)));
    chunks.flat_map(|(c, chunk)| {
        let fds = (c * SLOTS_EACH) as RawFd..;
        fds.zip(chunk.iter()).filter_map(|(fd, slot)| Some((fd, look(slot.load(Ordering::Acquire))?)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, SocketAddr};
    use std::sync::atomic::AtomicBool;

    /// Numbers that no descriptor of the tests has.
    const HIGH: RawFd = 3_000_000;

    fn made(fd: RawFd, port: u16) -> Entry {
        let at = Endpoint::Ip(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        Entry::new(fd, &Opened { local: at, peer: at, ..Opened::new(Kind::Udp, Location::caller()) })
    }

    #[test]
    fn a_number_that_is_given_again_is_another_socket() {
        let first = made(HIGH, 1);
        let serial = first.serial();
        assert_eq!(find(HIGH, serial).unwrap().traffic, [0, 0]);
        first.count(Direction::Read, 5, 9);
        assert_eq!((find(HIGH, serial).unwrap().traffic, find(HIGH, serial).unwrap().active), ([5, 0], 9));
        first.leave(HIGH);
        assert!(at(HIGH).is_none());
        let second = made(HIGH, 2);
        assert!(find(HIGH, serial).is_none() && find(HIGH, second.serial()).is_some());
        // Late, as after `close` on the value: it must not take the other's place away.
        first.leave(HIGH);
        assert!(find(HIGH, second.serial()).is_some());
        second.leave(HIGH);
    }

    #[test]
    fn clones_share_one_record_until_the_last_is_gone() {
        let first = made(HIGH + 1, 3);
        let word = first.word();
        let second = first.share(HIGH + 2);
        first.count(Direction::Write, 1, 1);
        first.leave(HIGH + 1);
        drop(first);
        second.count(Direction::Write, 2, 2);
        assert_eq!(at(HIGH + 2).unwrap().traffic, [0, 3]);
        second.leave(HIGH + 2);
        drop(second);
        assert!(Entry::of(word, HIGH + 3).is_none());
    }

    /// Both addresses always have the same port; a reader that saw two would have seen half a change or two sockets.
    #[test]
    fn readers_never_see_halves_of_two_sockets() {
        struct Over<'a>(&'a AtomicBool);
        impl Drop for Over<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let over = AtomicBool::new(false);
        std::thread::scope(|s| {
            for t in 0..2 {
                let over = &over;
                s.spawn(move || {
                    let fd = HIGH + 10 + t;
                    for port in (0..=u16::MAX).cycle().map(|i| i | 1).take_while(|_| !over.load(Ordering::Relaxed)) {
                        let entry = made(fd, port);
                        let other = Endpoint::Ip(SocketAddr::from((Ipv4Addr::LOCALHOST, port ^ 0x100)));
                        entry.set_endpoints(other, other);
                        entry.leave(fd);
                    }
                });
            }
            let _over = Over(&over);
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
            let (mut seen, mut looks) = (0, 0);
            while if cfg!(miri) { looks < 50 } else { seen < 2000 } {
                assert!(std::time::Instant::now() < deadline, "only {seen} of {looks} looks saw a socket");
                for t in 0..2 {
                    looks += 1;
                    if let Some(s) = at(HIGH + 10 + t) {
                        assert_eq!(s.local, s.peer);
                        seen += 1;
                    }
                }
            }
        });
    }

    #[test]
    fn numbers_beyond_the_table_are_counted_and_not_listed() {
        let entry = made(RawFd::MAX, 4);
        entry.count(Direction::Read, 1, 1);
        assert!(at(RawFd::MAX).is_none() && at(-1).is_none());
        entry.leave(RawFd::MAX);
    }
}
