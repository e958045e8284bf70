//! The client for postgres, with a real server and psql.

use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use coro::net::TcpStream;
use coro_ecosystem::postgres::Client;

use crate::real::{Directory, Kept, has, own_addr, quietly, until_it_listens};
use crate::{on, until};

const PASSWORD: &str = "secret of a test";

/// A server with one user, `coro`.
struct Postgres {
    addr: SocketAddr,
    child: Kept,
    _directory: Directory,
}

impl Drop for Postgres {
    /// It takes its shared memory with it, if it is not killed; `Kept` kills it where it does not end.
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-INT", &self.child.0.id().to_string()]).status();
        let deadline = Instant::now() + Duration::from_secs(10);
        while matches!(self.child.0.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Of the newest version that is installed.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok();
    let all = versions.into_iter().flatten().filter_map(|v| Some(v.ok()?.path().join("bin")));
    let version = |bin: &PathBuf| bin.parent().and_then(|v| v.file_name()?.to_str()?.parse::<u32>().ok());
    let newest = all.filter(|bin| bin.join("initdb").exists()).max_by_key(version);
    if newest.is_none() {
        coro::print_stderr("SKIPPED: no postgres in /usr/lib/postgresql; .ci/servers installs it");
    }
    newest
}

impl Postgres {
    fn start(addr: SocketAddr) -> Option<Postgres> {
        let programs = programs()?;
        let directory = Directory::new();
        let password = directory.at("password");
        std::fs::write(&password, PASSWORD).unwrap();
        // It refuses to run as root.
        let root = std::fs::metadata(directory.path()).unwrap().uid() == 0;
        if root && !has("setpriv") {
            return None;
        }
        if root {
            let given = Command::new("chown").args(["-R", "postgres"]).arg(directory.path()).status();
            assert!(given.unwrap().success(), "its package has made the user postgres");
        }
        let as_user = |program: &str| {
            let program = programs.join(program);
            if !root {
                return Command::new(program);
            }
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(program);
            command
        };
        let data = directory.at("data");
        let mut initdb = as_user("initdb");
        initdb.args(["--no-sync", "-U", "coro", "-A", "scram-sha-256", "--pwfile"]).arg(&password).arg("-D").arg(&data);
        let made = initdb.current_dir("/").stdin(Stdio::null()).output().unwrap();
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let mut command = as_user("postgres");
        command.args(["-F", "-h", &addr.ip().to_string(), "-p", &addr.port().to_string(), "-k"]).arg(directory.path());
        let child = quietly(command.arg("-D").arg(&data).current_dir("/"));
        let mut server = Postgres { addr, child, _directory: directory };
        until_it_listens(&mut server.child, addr);
        // It listens before it is there. The client works over std's streams as well.
        until("postgres is there", || {
            let stream = std::net::TcpStream::connect(addr).unwrap();
            match Client::log_in(stream, "coro", PASSWORD, "postgres") {
                Ok(_) => true,
                Err(e) if e.to_string().contains("starting up") => false,
                Err(e) => panic!("{e}"),
            }
        });
        Some(server)
    }
}

fn log_in(addr: SocketAddr, password: &str) -> std::io::Result<Client<TcpStream>> {
    Client::log_in(TcpStream::connect(addr)?, "coro", password, "postgres")
}

#[test]
fn postgres_answers_queries_over_our_streams() {
    let Some(server) = Postgres::start(own_addr(15432)) else { return };
    let addr = server.addr;
    on(1, move || {
        let wrong = log_in(addr, "wrong").unwrap_err().to_string();
        assert!(wrong.contains("password authentication failed"), "{wrong}");
        let mut client = log_in(addr, PASSWORD).unwrap();
        let rows = client.query(
            "create table t (n int, s text); insert into t values (1, 'one'), (2, null); select * from t order by n",
        );
        let text = |s: &str| Some(s.to_owned());
        assert_eq!(rows.unwrap(), [vec![text("1"), text("one")], vec![text("2"), None]]);
        // The server's errors, and what it waits for in vain, do not end the connection.
        let missing = client.query("select * from nowhere").unwrap_err().to_string();
        assert!(missing.contains("\"nowhere\" does not exist"), "{missing}");
        let copy = client.query("copy t from stdin").unwrap_err().to_string();
        assert!(copy.contains("no rows are sent here"), "{copy}");
        let large = client.query("select repeat('x', 1000) from generate_series(1, 500)").unwrap();
        assert!(large.len() == 500 && large.iter().all(|row| row[0].as_ref().is_some_and(|s| s.len() == 1000)));

        // Five at once wait in the server, on the only worker there is, until this task lets them.
        client.query("select pg_advisory_lock(7)").unwrap();
        let waiting: Vec<_> = (0..5)
            .map(|_| coro::spawn(move || log_in(addr, PASSWORD).unwrap().query("select pg_advisory_lock_shared(7), 7")))
            .collect();
        let asked = "select count(*) from pg_locks where locktype = 'advisory' and not granted";
        until("all five wait", || client.query(asked).unwrap()[0][0].as_deref() == Some("5"));
        client.query("select pg_advisory_unlock(7)").unwrap();
        for task in waiting {
            assert_eq!(task.join().unwrap().unwrap()[0][1].as_deref(), Some("7"));
        }

        // A query that was broken off takes its connection with it.
        let late = coro::timeout(Duration::from_millis(20), || client.query("select pg_sleep(1)"));
        assert!(late.is_err());
        assert_eq!(client.query("select 1").unwrap_err().kind(), std::io::ErrorKind::NotConnected);
    });
    if has("psql") {
        let mut psql = Command::new("psql");
        psql.args([
            "-h",
            &addr.ip().to_string(),
            "-p",
            &addr.port().to_string(),
            "-U",
            "coro",
            "-d",
            "postgres",
            "-Atc",
        ]);
        let output = psql.arg("select n, s from t order by n").env("PGPASSWORD", PASSWORD).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "1|one\n2|\n", "{output:?}");
    }
}
