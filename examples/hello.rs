//! The smallest program: ten tasks say something to an eleventh. It needs no feature of the library, so `.ci/lean` builds it
//! without any: `cargo run --example hello --no-default-features`.

use std::io::Write as _;
use std::time::Duration;

fn main() -> std::io::Result<()> {
    coro::run(|| {
        let (say, heard) = coro::sync::mpsc::channel();
        for n in 1..=10 {
            let say = say.clone();
            coro::spawn_named(format!("greeter {n}"), move || {
                coro::sleep(Duration::from_millis(10 * n));
                say.send(format!("hello from task {n}"))
            });
        }
        drop(say);
        let mut out = std::io::stdout();
        for text in heard {
            writeln!(out, "{text}")?;
        }
        Ok(())
    })
}
