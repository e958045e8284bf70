//! The redis client and the pool of workers, with a real server and redis-cli.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use coro_ecosystem::redis_client::Connection;
use redis::{Commands, ConnectionLike};

use crate::real::{Directory, Kept, has, own_addr, quietly, until_it_listens};
use crate::server::Server;
use crate::{on, until};

struct Redis {
    addr: SocketAddr,
    _child: Kept,
    _directory: Directory,
}

impl Redis {
    fn start(addr: SocketAddr) -> Redis {
        let directory = Directory::new();
        let mut command = Command::new("redis-server");
        command.args(["--port", &addr.port().to_string(), "--bind", &addr.ip().to_string()]);
        command.args(["--save", "", "--appendonly", "no", "--dir"]).arg(directory.path());
        let mut child = quietly(&mut command);
        until_it_listens(&mut child, addr);
        Redis { addr, _child: child, _directory: directory }
    }
}

/// Says so when it goes.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn cli(addr: SocketAddr, args: &[&str]) -> String {
    let mut command = Command::new("redis-cli");
    command.args(["-h", &addr.ip().to_string(), "-p", &addr.port().to_string()]).args(args);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn redis_commands_pipelines_and_transactions_work_through_our_stream() {
    if !has("redis-server") {
        return;
    }
    let server = Redis::start(own_addr(16379));
    on(2, move || {
        let mut connection = Connection::open(server.addr).unwrap();
        let () = connection.set("name", "coro").unwrap();
        assert_eq!(connection.get::<_, String>("name").unwrap(), "coro");
        assert_eq!(cli(server.addr, &["get", "name"]), "coro");
        let long = "x".repeat(300_000);
        let () = connection.set("long", &long).unwrap();
        assert!(connection.get::<_, String>("long").unwrap() == long);

        let (a, b): (i64, i64) = redis::pipe().atomic().incr("n", 1).incr("n", 41).query(&mut connection).unwrap();
        assert_eq!((a, b), (1, 42));
        // What the server refuses is an error, and the connection goes on with the right answer.
        let wrong = connection.incr::<_, _, i64>("name", 1).unwrap_err();
        assert!(wrong.to_string().contains("not an integer"), "{wrong}");
        let wrong = redis::pipe().incr("name", 1).incr("n", 1).query::<(i64, i64)>(&mut connection).unwrap_err();
        assert!(wrong.to_string().contains("not an integer"), "{wrong}");
        let wrong = redis::pipe().atomic().cmd("NONSENSE").query::<()>(&mut connection).unwrap_err();
        assert!(wrong.to_string().contains("NONSENSE"), "{wrong}");
        assert_eq!(connection.get::<_, i64>("n").unwrap(), 43);
        assert!(connection.is_open() && connection.check_connection());

        // An answer that comes too late would be taken for that to the next question.
        let late = coro::timeout(Duration::from_millis(20), || connection.blpop::<_, (String, String)>("nothing", 0.0));
        assert!(late.is_err() && !connection.is_open());
        assert!(connection.get::<_, String>("name").unwrap_err().is_io_error());
        let mut connection = Connection::open(server.addr).unwrap();
        drop(server);
        assert!(connection.get::<_, String>("name").is_err() && !connection.is_open());
    });
}

#[test]
fn workers_take_jobs_from_redis_and_outlive_it() {
    if !has("redis-server") {
        return;
    }
    const WORKERS: usize = 20;
    let addr = own_addr(16380);
    let redis = Redis::start(addr);
    let pool = Server::start("jobs", &[&addr.to_string(), &WORKERS.to_string()]);
    let results = |n: u64| {
        let mut connection = Connection::open(addr).unwrap();
        until(&format!("{n} results"), || connection.llen::<_, u64>("results").unwrap() == n);
        assert_eq!(connection.llen::<_, u64>("taken").unwrap(), 0, "what is done lies in one list only");
    };
    let mut connection = Connection::open(addr).unwrap();
    for n in 0..500 {
        let () = connection.lpush("jobs", format!("job {n}")).unwrap();
    }
    results(500);
    assert_eq!(cli(addr, &["lpush", "jobs", "by hand"]), "1");
    results(501);
    assert_eq!(cli(addr, &["lindex", "results", "0"]), "by hand dnah yb");
    // Jobs come without a pause while we look.
    let over = AtomicBool::new(false);
    let more = std::thread::scope(|scope| {
        let feeding = scope.spawn(|| {
            let mut n = 0;
            while !over.load(Ordering::Relaxed) {
                cli(addr, &["lpush", "jobs", "a", "b", "c", "d", "e", "f", "g", "h"]);
                n += 8;
            }
            n
        });
        // Where this fails, the feeding has to end nevertheless: it is waited for.
        let look_is_over = Over(&over);
        pool.look("jobs", "20 workers and jobs that come without a pause", "read fd", WORKERS / 2);
        drop(look_is_over);
        feeding.join().unwrap()
    });
    results(501 + more);

    // Another server in its place: they find it.
    drop(redis);
    let redis = Redis::start(addr);
    cli(addr, &["lpush", "jobs", "again"]);
    results(1);
    assert_eq!(cli(addr, &["lindex", "results", "0"]), "again niaga");
    // Ended one by one, they end the program.
    for _ in 0..WORKERS {
        cli(addr, &["lpush", "jobs", "end"]);
    }
    assert_eq!(pool.ends(), format!("{} jobs done", 502 + more));
    drop(redis);
}
