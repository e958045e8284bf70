//! A ping-pong between two threads that have a runtime each, and how idle they are when it is over.
//!
//! So would a user of tokio or smol keep two tasks apart, and with glommio and monoio there is no other way. Must not know: which runtime.

use std::future::Future;
use std::pin::Pin;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::Refused;
use super::shared::futures::{Receiver, Sender};
use crate::args::Args;
use crate::measure::{Idle, ns_each};

/// What one of the two threads does.
pub(super) type Side = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The message after the last one.
const END: u64 = u64::MAX;

pub(super) fn asked_for(args: &Args) -> bool {
    args.workload == "pingpong" && args.text("place", "natural") == "cross"
}

/// `run` gives a runtime to a side, as its only task, on the calling thread. The channels have room for one message.
pub(super) fn ping_pong<S: Sender, R: Receiver>(
    args: &Args,
    channel: impl Fn() -> (S, R),
    run: fn(Side) -> Result<(), Refused>,
) -> Result<(), Refused> {
    if args.workers < 2 {
        return Err(Refused::Unsupported("one thread".to_owned()));
    }
    if args.text("chan", "b") != "b" {
        return Err(Refused::unknown(args));
    }
    let rounds = args.number("rounds", 200_000u64);
    let ((to_b, mut at_b), (to_a, mut at_a)) = (channel(), channel());
    let (end, (done, took)) = (to_a.clone(), mpsc::channel());
    let start = Instant::now();
    let a = async move {
        for i in 0..rounds {
            to_b.put(i).await;
            assert_eq!(at_a.next().await, i);
        }
        done.send(start.elapsed()).expect("somebody waits for it");
        assert_eq!(at_a.next().await, END);
        to_b.put(END).await;
    };
    let b = async move {
        for _ in 0..rounds {
            let value = at_b.next().await;
            to_a.put(value).await;
        }
        assert_eq!(at_b.next().await, END);
    };
    let sides: [Side; 2] = [Box::pin(a), Box::pin(b)];
    let threads = sides.map(|side| std::thread::spawn(move || run(side)));
    // If a runtime cannot be here, nothing comes, and its thread says why.
    if let Ok(took) = took.recv() {
        args.report("pingpong-cross.b1", "ns_per_round_trip", ns_each(took, rounds as usize));
        let wait = Duration::from_millis(args.number("idle", 0));
        if !wait.is_zero() {
            let idle = Idle::begin();
            // Not in a runtime: both wait for a message of another thread, and for nothing else.
            std::thread::sleep(wait);
            args.report("pingpong-cross.b1", "idle_cpu_pct", idle.percent());
        }
        smol::block_on(end.put(END));
    }
    for thread in threads {
        thread.join().unwrap_or_else(|payload| std::panic::resume_unwind(payload))?;
    }
    Ok(())
}
