//! The chat, with tungstenite's client over our streams.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use coro::net::TcpStream;
use tungstenite::{Error, Message, WebSocket};

use crate::server::Server;
use crate::{on, until};

fn join(addr: SocketAddr) -> WebSocket<TcpStream> {
    let stream = TcpStream::connect(addr).unwrap();
    tungstenite::client(format!("ws://{addr}/"), stream).unwrap().0
}

fn heard(socket: &mut WebSocket<TcpStream>, wanted: &str) {
    while !socket.read().unwrap().to_text().unwrap().contains(wanted) {}
}

#[test]
fn what_one_says_all_hear() {
    const CLIENTS: usize = 50;
    let server = Server::start("chat", &["127.0.0.1:0"]);
    let addr = server.addr;
    on(2, move || {
        let mut clients: Vec<_> = (0..CLIENTS).map(|_| join(addr)).collect();
        heard(&mut clients[0], &format!("{CLIENTS} of us"));
        clients[0].send(Message::text("hello, all")).unwrap();
        clients.iter_mut().for_each(|c| heard(c, ": hello, all"));
        // Its answer comes through the writer's channel, between whole frames.
        clients[1].send(Message::Ping(b"there?"[..].into())).unwrap();
        assert_eq!(clients[1].read().unwrap(), Message::Pong(b"there?"[..].into()));
        // One leaves with a word, one without, one says too much: the others hear of each, and nothing of them stays.
        let mut polite = clients.pop().unwrap();
        polite.close(None).unwrap();
        while !matches!(polite.read(), Err(Error::ConnectionClosed)) {}
        heard(&mut clients[0], "has left");
        drop(clients.pop());
        heard(&mut clients[0], "has left");
        let mut long = clients.pop().unwrap();
        long.send(Message::text("x".repeat(20_000))).unwrap();
        heard(&mut clients[0], "has left");
        until("their tasks have ended", || {
            let tasks = server.ask("count by class");
            let row = |class: &str| {
                tasks.lines().find_map(|l| l.strip_prefix(class)?.split_whitespace().next()?.parse().ok())
            };
            [row("chat writer "), row("chat ")] == [Some(CLIENTS - 3); 2]
        });

        // All listen, two talk without a pause.
        let over = Arc::new(AtomicBool::new(false));
        let talk = |(n, mut client): (usize, WebSocket<TcpStream>)| {
            let over = over.clone();
            coro::spawn(move || {
                if n < 2 {
                    let text = format!("{n} has something to say");
                    while !over.load(Ordering::Relaxed) && client.send(Message::text(text.as_str())).is_ok() {
                        while client.read().is_ok_and(|m| !m.to_text().unwrap().contains(&text)) {}
                    }
                }
                while client.read().is_ok() {}
            })
        };
        let talkers: Vec<_> = clients.into_iter().enumerate().map(talk).collect();
        server.look("chat", "47 clients, two of whom talk without a pause", "re", CLIENTS);
        over.store(true, Ordering::Relaxed);
        drop(server);
        talkers.into_iter().for_each(|t| drop(t.join()));
    });
}

#[test]
fn who_does_not_read_is_thrown_out_and_keeps_nobody_waiting() {
    let server = Server::start("chat", &["127.0.0.1:0"]);
    let addr = server.addr;
    on(2, move || {
        let mut deaf = join(addr);
        let mut loud = join(addr);
        let mut listener = join(addr);
        heard(&mut listener, "3 of us");
        // More than the queue and the kernel's buffers hold.
        let listening = coro::spawn(move || heard(&mut listener, "* 1 has left"));
        let text = "y".repeat(15_000);
        let talking = coro::spawn(move || {
            while loud.send(Message::text(text.as_str())).is_ok() {
                // Its own words come back to it, and would fill its own queue.
                while loud.read().is_ok_and(|m| !m.to_text().unwrap().starts_with("2: ")) {}
            }
        });
        listening.join().unwrap();
        talking.cancel();
        let _ = talking.join();
        deaf.get_ref().set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        while deaf.read().is_ok() {}
    });
}
