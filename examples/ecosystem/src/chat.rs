//! A WebSocket chat: what one says, all get.
//!
//! tungstenite's `WebSocket` reads and writes one stream, and answers pings while it reads. Here one task reads and another
//! writes, so everything that goes out, answers to pings included, is bytes in the writer's channel: frames never mix.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use coro::net::{Serving, TcpStream, WorkerListeners};
use coro::sync::mpsc::{SyncSender, sync_channel};
use coro::sync::{Mutex, MutexGuard};
use tungstenite::Message;
use tungstenite::protocol::WebSocketConfig;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{Data, OpCode};

/// So many pieces may wait for a client; one that does not read is thrown out.
const QUEUE: usize = 256;
/// The longest thing that can be said, in bytes.
const LONGEST: usize = 16 * 1024;

/// How long a client may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(10);

type Bytes = Arc<[u8]>;

/// Who is there.
#[derive(Debug, Default)]
struct Room {
    next: u64,
    clients: BTreeMap<u64, Client>,
}

#[derive(Debug)]
struct Client {
    queue: SyncSender<Bytes>,
    stream: Arc<TcpStream>,
}

impl Room {
    /// To all; never waits. Those whose queue is full are thrown out: their tasks see the end of the stream.
    fn say(&mut self, text: &str) {
        let mut frame = Vec::new();
        let message = Frame::message(text.as_bytes().to_vec(), OpCode::Data(Data::Text), true);
        message.format(&mut frame).expect("memory takes everything");
        let frame: Bytes = frame.into();
        self.clients.retain(|_, client| {
            let takes = client.queue.try_send(frame.clone()).is_ok();
            if !takes {
                let _ = client.stream.shutdown(Shutdown::Both);
            }
            takes
        });
    }
}

/// The room, however the last one left it: everything done in it is whole at every moment.
fn locked(room: &Mutex<Room>) -> MutexGuard<'_, Room> {
    room.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A place in the room, left in whatever way the task ends.
struct Seat<'a> {
    room: &'a Mutex<Room>,
    id: u64,
}

impl<'a> Seat<'a> {
    fn take(room: &'a Mutex<Room>, client: Client) -> Seat<'a> {
        let mut inside = locked(room);
        inside.next += 1;
        let id = inside.next;
        inside.clients.insert(id, client);
        let text = format!("* {id} is there, {} of us", inside.clients.len());
        inside.say(&text);
        Seat { room, id }
    }

    fn say(&self, text: &str) {
        locked(self.room).say(&format!("{}: {text}", self.id));
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut inside = locked(self.room);
        inside.clients.remove(&self.id);
        inside.say(&format!("* {} has left", self.id));
    }
}

/// Reads from the connection, and writes into the writer's channel.
#[derive(Debug)]
struct Half {
    stream: Arc<TcpStream>,
    out: SyncSender<Bytes>,
}

impl Read for Half {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        (&*self.stream).read(buf)
    }
}

impl Write for Half {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.out.send(buf.into()).map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Serves a chat on all listeners.
///
/// # Errors
/// If an acceptor cannot be started.
pub fn serve(listeners: WorkerListeners) -> io::Result<Serving> {
    let room = Arc::new(Mutex::new(Room::default()).named("room"));
    listeners.serve("chat", move |stream, peer| {
        if let Err(e) = client(&room, Arc::new(stream)) {
            coro::print_stderr(format!("chat {peer}: {e}"));
        }
    })
}

fn client(room: &Mutex<Room>, stream: Arc<TcpStream>) -> io::Result<()> {
    let (out, queue) = sync_channel::<Bytes>(QUEUE);
    let sink = stream.clone();
    let _writer = coro::Builder::new().name("chat writer").class("chat writer").spawn_local(move || {
        // Ends when nobody can put anything into the queue any more.
        for bytes in queue {
            if (&*sink).write_all(&bytes).is_err() {
                break;
            }
        }
        // A reader that still waits sees the end of the stream.
        let _ = sink.shutdown(Shutdown::Both);
    })?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let half = Half { stream: stream.clone(), out: out.clone() };
    let limits =
        WebSocketConfig::default().read_buffer_size(4096).max_message_size(Some(LONGEST)).max_frame_size(Some(LONGEST));
    let mut socket = match tungstenite::accept_with_config(half, Some(limits)) {
        Ok(socket) => socket,
        // Whoever connects and says nothing, or nothing sensible.
        Err(e) => return Err(io::Error::new(io::ErrorKind::InvalidData, e.to_string())),
    };
    // From here on it may listen for as long as it likes.
    stream.set_read_timeout(None)?;
    let seat = Seat::take(room, Client { queue: out, stream });
    // Ends with an error when the client has gone, in whatever way; with `ConnectionClosed` after both have said so.
    while let Ok(message) = socket.read() {
        if let Message::Text(text) = message {
            seat.say(&text);
        }
    }
    Ok(())
}
