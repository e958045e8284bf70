//! What crossbeam-channel's documentation promises of channels, asked of ours: bounds, disconnection, time limits, iterators, and
//! the channels whose messages are points in time. In tasks and on plain threads.

mod util;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use coro::sync::mpmc::{
    Receiver, RecvError, RecvTimeoutError, SendTimeoutError, TryRecvError, TrySendError, after, at, channel, never,
    sync_channel, tick,
};
use util::{runtime, within};

const LIMIT: Duration = Duration::from_secs(30);

/// Before that nothing comes, however busy the machine is; nobody waits for it.
const FAR: Duration = Duration::from_secs(60);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// In tasks, and on plain threads.
fn everywhere(f: impl Fn() + Clone + Send + 'static) {
    let again = f.clone();
    within(LIMIT, || runtime(2).block_on(again));
    within(LIMIT, f);
}

#[test]
fn one_message_after_a_time() {
    everywhere(|| {
        let r = after(FAR);
        assert_eq!((r.capacity(), r.len(), r.is_empty(), r.is_full()), (Some(1), 0, true, false));
        assert_eq!(r.try_recv(), Err(TryRecvError::Empty));
        assert_eq!(r.recv_timeout(ms(1)), Err(RecvTimeoutError::Timeout));
        let begun = Instant::now();
        let r = after(ms(5));
        let message = r.recv().unwrap();
        assert!(message >= begun + ms(5) && message <= Instant::now());
        // Exactly one, and the channel is never disconnected.
        assert_eq!(r.try_recv(), Err(TryRecvError::Empty));
        assert_eq!(r.recv_timeout(ms(2)), Err(RecvTimeoutError::Timeout));
        // It is there when its time has come, and lies in the channel.
        let r = at(begun);
        assert_eq!((r.len(), r.is_full()), (1, true));
        assert_eq!((r.try_recv(), r.len()), (Ok(begun), 0));
        // A time limit that ends when the message comes.
        let when = Instant::now() + ms(2);
        assert_eq!(at(when).recv_deadline(when), Ok(when));
        // One of several receivers has it.
        let (r, got) = (after(ms(3)), Arc::new(AtomicUsize::new(0)));
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let (r, got) = (r.clone(), got.clone());
                assert!(r.same_channel(&r.clone()));
                coro::spawn(move || {
                    if r.recv_timeout(ms(20)).is_ok() {
                        got.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        waiting.into_iter().for_each(|w| w.join().unwrap());
        assert_eq!(got.load(Ordering::Relaxed), 1);
        assert!(!after(ms(1)).same_channel(&after(ms(1))));
        // Beyond what an `Instant` can hold there is nothing.
        assert_eq!(after(Duration::MAX).recv_timeout(ms(1)), Err(RecvTimeoutError::Timeout));
    });
}

#[test]
fn messages_at_a_steady_pace() {
    everywhere(|| {
        let r = tick(FAR);
        assert_eq!((r.capacity(), r.try_recv()), (Some(1), Err(TryRecvError::Empty)));
        let begun = Instant::now();
        let r = tick(ms(10));
        let first = r.recv().unwrap();
        assert!(first >= begun + ms(10) && first <= Instant::now());
        // While nobody takes the second there are no others; the next is a period after that.
        coro::sleep(ms(50));
        assert_eq!(r.len(), 1);
        let late = Instant::now();
        let second = r.recv().unwrap();
        assert!(second >= first + ms(10) && second <= late, "{:?}", second - first);
        let third = r.recv().unwrap();
        assert!(third >= late + ms(10) && third <= Instant::now());
        assert_eq!(r.iter().take(2).count(), 2);
        assert!(r.try_iter().count() <= 1);
    });
}

#[test]
fn nothing_for_ever() {
    everywhere(|| {
        let r: Receiver<u32> = never();
        assert_eq!((r.len(), r.capacity(), r.is_empty()), (0, Some(0), true));
        assert_eq!(r.try_recv(), Err(TryRecvError::Empty));
        assert_eq!(r.recv_timeout(ms(1)), Err(RecvTimeoutError::Timeout));
        assert_eq!(r.try_iter().next(), None);
        // An arm that is switched off.
        let (tx, rx) = channel();
        tx.send(1).unwrap();
        let off: Receiver<u32> = if rx.is_empty() { rx.clone() } else { never() };
        assert_eq!(coro::select! { recv(off) -> _ => 0, default => 2 }, 2);
        assert_eq!(coro::select! { recv(off) -> _ => 0, recv(rx) -> m => m.unwrap() }, 1);
    });
}

/// A limit for several choices, and a tick beside messages.
#[test]
fn time_goes_from_choice_to_choice() {
    everywhere(|| {
        let (tx, rx) = channel::<u32>();
        let sender = coro::spawn(move || {
            for n in 0.. {
                coro::sleep(ms(1));
                if tx.send(n).is_err() {
                    return n;
                }
            }
            0
        });
        let begun = Instant::now();
        let (limit, pace) = (after(ms(30)), tick(ms(5)));
        let (mut messages, mut ticks, mut over) = (0, 0, false);
        // The machine may be so busy that all are ready at once.
        while !over || messages == 0 || ticks == 0 {
            coro::select! {
                recv(rx) -> m => {
                    assert_eq!(m, Ok(messages));
                    messages += 1;
                }
                recv(pace) -> _ => ticks += 1,
                recv(limit) -> _ => over = true,
            }
        }
        let took = begun.elapsed();
        assert!(took >= ms(30) && took >= ms(5) * ticks, "{messages} messages, {ticks} ticks in {took:?}");
        drop(rx);
        sender.join().unwrap();
    });
}

#[test]
fn bounds_and_room() {
    everywhere(|| {
        let (s, r) = channel();
        assert_eq!((s.capacity(), s.is_full(), s.is_empty()), (None, false, true));
        (0..100).for_each(|n| s.try_send(n).unwrap());
        assert_eq!((s.len(), r.len(), r.is_full()), (100, 100, false));
        assert!(s.same_channel(&s.clone()) && r.same_channel(&r.clone()) && !s.same_channel(&channel().0));

        let (s, r) = sync_channel(2);
        assert_eq!((s.send(1), s.try_send(2)), (Ok(()), Ok(())));
        assert_eq!((s.len(), s.is_full(), r.is_full(), r.capacity()), (2, true, true, Some(2)));
        assert_eq!(s.try_send(3), Err(TrySendError::Full(3)));
        let begun = Instant::now();
        assert_eq!(s.send_timeout(3, ms(3)), Err(SendTimeoutError::Timeout(3)));
        assert_eq!(s.send_deadline(3, Instant::now() + ms(2)), Err(SendTimeoutError::Timeout(3)));
        assert!(begun.elapsed() >= ms(5));
        // A send that waits goes on when there is room, and messages keep their order.
        let waits = coro::spawn(move || s.send(3));
        assert_eq!(r.iter().collect::<Vec<_>>(), [1, 2, 3]);
        waits.join().unwrap().unwrap();

        // Without room every message goes from hand to hand.
        let (s, r) = sync_channel(0);
        assert_eq!((s.capacity(), s.len(), s.is_empty(), s.is_full()), (Some(0), 0, true, true));
        assert_eq!(s.try_send(1), Err(TrySendError::Full(1)));
        assert_eq!(r.try_recv(), Err(TryRecvError::Empty));
        assert_eq!(s.send_timeout(1, ms(2)), Err(SendTimeoutError::Timeout(1)));
        assert_eq!(r.recv_timeout(ms(2)), Err(RecvTimeoutError::Timeout));
        let waits = coro::spawn(move || r.recv());
        assert_eq!(s.send(1), Ok(()));
        assert_eq!(waits.join().unwrap(), Ok(1));
    });
}

#[test]
fn the_other_side_goes() {
    everywhere(|| {
        // What was sent is received first.
        let (s, r) = channel();
        (0..3).for_each(|n| s.send(n).unwrap());
        drop(s.clone());
        assert_eq!(r.try_recv(), Ok(0));
        drop(s);
        assert_eq!((r.recv(), r.recv_timeout(ms(1))), (Ok(1), Ok(2)));
        assert_eq!((r.recv(), r.try_recv()), (Err(RecvError), Err(TryRecvError::Disconnected)));
        assert_eq!(r.recv_timeout(ms(1)), Err(RecvTimeoutError::Disconnected));
        assert_eq!(r.iter().next(), None);
        // What is sent to nobody comes back; what nobody received is dropped with the last receiver.
        let (s, r) = sync_channel(4);
        let kept = Arc::new(());
        s.send(kept.clone()).unwrap();
        drop(r.clone());
        assert_eq!(Arc::strong_count(&kept), 2);
        drop(r);
        assert_eq!(Arc::strong_count(&kept), 1);
        assert!(s.send(kept.clone()).is_err());
        assert!(matches!(s.try_send(kept.clone()), Err(TrySendError::Disconnected(_))));
        assert!(matches!(s.send_timeout(kept, ms(1)), Err(SendTimeoutError::Disconnected(_))));
        // Whoever waits is told.
        let (s, r) = sync_channel::<u32>(0);
        let (s2, r2) = sync_channel::<u32>(0);
        let receives = coro::spawn(move || r.recv());
        let sends = coro::spawn(move || s2.send(7).map_err(|e| e.0));
        coro::sleep(ms(1));
        drop((s, r2));
        assert_eq!((receives.join().unwrap(), sends.join().unwrap()), (Err(RecvError), Err(7)));
    });
}

#[test]
fn iterators_wait_or_do_not() {
    everywhere(|| {
        let (s, r) = channel();
        assert_eq!(r.try_iter().count(), 0);
        (0..3).for_each(|n| s.send(n).unwrap());
        assert_eq!(r.try_iter().collect::<Vec<_>>(), [0, 1, 2]);
        let sends = coro::spawn(move || {
            for n in 0..3 {
                coro::sleep(ms(1));
                s.send(n).unwrap();
            }
        });
        assert_eq!((&r).into_iter().take(2).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(r.into_iter().collect::<Vec<_>>(), [2]);
        sends.join().unwrap();
    });
}
