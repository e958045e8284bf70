//! A task at a breakpoint is released once, also if its turn has not come when somebody releases it again.
#![cfg(all(target_os = "linux", not(miri)))]

#[path = "probe/session.rs"]
mod session;
mod util;

use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use session::Session;
use util::sockets::Directory;
use util::{until, within};

const LIMIT: Duration = Duration::from_secs(60);

mod app {
    #[coro::probe]
    pub(crate) fn pay(cents: u64) -> Result<u64, String> {
        Ok(cents)
    }
}

static ATTACHED: AtomicBool = AtomicBool::new(false);
static WORKER_IS_TAKEN: AtomicBool = AtomicBool::new(false);
static TAKE_WORKER: AtomicBool = AtomicBool::new(false);

fn is_set(flag: &AtomicBool) -> bool {
    flag.load(Ordering::Acquire)
}

#[test]
fn what_a_task_was_released_with_stays_until_its_turn() {
    within(LIMIT, || {
        let directory = Directory::new();
        let path = directory.at("s");
        let server_path = path.clone();
        let server = std::thread::spawn(move || {
            coro::runner().workers(1).run(move || {
                let _backdoor = coro::backdoor::serve(&server_path).expect("a backdoor");
                while !is_set(&ATTACHED) {
                    coro::sleep(Duration::from_millis(1));
                }
                let payer = coro::spawn(|| app::pay(7));
                while !is_set(&TAKE_WORKER) {
                    coro::sleep(Duration::from_millis(1));
                }
                // Nobody else has a turn meanwhile.
                WORKER_IS_TAKEN.store(true, Ordering::Release);
                while is_set(&TAKE_WORKER) {
                    std::hint::spin_loop();
                }
                payer.join().expect("no panic")
            })
        });
        until(LIMIT, "it listens", || UnixStream::connect(&path).is_ok());
        let mut session = Session::open(&path);
        session.ask("enable probe");
        session.ask("enable act");
        let said = session.ask("probe attach app::pay break");
        let id = said[0].split_whitespace().nth(1).expect("a number").to_owned();
        ATTACHED.store(true, Ordering::Release);
        let task = session.told().split_whitespace().next().expect("who stopped").to_owned();
        TAKE_WORKER.store(true, Ordering::Release);
        until(LIMIT, "the worker is taken", || is_set(&WORKER_IS_TAKEN));

        assert_eq!(session.ask(&format!("probe release {id} {task} failing no money")), [format!("{task} goes on")]);
        let nobody = format!("nobody stands at probe {id}; probe show {id} says who does");
        assert_eq!(session.ask(&format!("probe release {id}")), [nobody]);
        let not_that = format!("{task} does not stand at probe {id}; probe show {id} says who does");
        assert_eq!(session.ask(&format!("probe release {id} {task} returning 0")), [not_that]);
        assert!(session.ask(&format!("probe show {id}")).iter().all(|line| !line.contains(&task)));

        TAKE_WORKER.store(false, Ordering::Release);
        assert_eq!(server.join().expect("it ends"), Err("no money".to_owned()));
    });
}
