//! The command line and the output lines, of every Rust program that is compared: `benches/peers` has this file as well.

/// The runtimes of a program, by name, with the number of their workers.
pub(crate) type Runtimes = &'static [(&'static str, usize)];

/// What was asked for.
pub(crate) struct Args {
    pub(crate) runtime: String,
    pub(crate) workload: String,
    pub(crate) workers: usize,
    keys: Vec<(String, String)>,
}

impl Args {
    pub(crate) fn parse(runtimes: Runtimes, mut words: impl Iterator<Item = String>) -> Result<Args, String> {
        let runtime = words.next().ok_or("which runtime?")?;
        let found = runtimes.iter().find(|(name, _)| *name == runtime);
        let workers = found.ok_or_else(|| format!("there is no runtime {runtime:?}"))?.1;
        let workload = words.next().ok_or("which workload?")?;
        let split = |word: String| match word.split_once('=') {
            Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
            None => Err(format!("{word:?} is not key=value")),
        };
        let keys = words.map(split).collect::<Result<_, _>>()?;
        Ok(Args { runtime, workload, workers, keys })
    }

    fn value(&self, key: &str) -> Option<&str> {
        self.keys.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// A number, or `default` without the key. Anything else ends the process: a misread number measures nonsense.
    pub(crate) fn number<N: std::str::FromStr>(&self, key: &str, default: N) -> N {
        let Some(text) = self.value(key) else { return default };
        text.parse().unwrap_or_else(|_| {
            eprintln!("{key}={text} is not a number that fits");
            std::process::exit(2)
        })
    }

    pub(crate) fn text<'a>(&'a self, key: &str, default: &'a str) -> &'a str {
        self.value(key).unwrap_or(default)
    }

    /// Prints one measured value.
    pub(crate) fn report(&self, case: &str, metric: &str, value: f64) {
        println!("{case} {} {metric} {value:.3}", self.runtime);
    }
}
