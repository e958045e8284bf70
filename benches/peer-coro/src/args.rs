//! The command line and the output lines.

/// What was asked for.
pub(crate) struct Args {
    runtime: String,
    pub(crate) workload: String,
    pub(crate) workers: usize,
    keys: Vec<(String, String)>,
}

impl Args {
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Result<Args, String> {
        let runtime = words.next().ok_or("which runtime?")?;
        let workers = match runtime.as_str() {
            "coro-1" => 1,
            "coro-2" => 2,
            other => return Err(format!("there is no runtime {other:?}")),
        };
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
            eprintln!("peer-coro: {key}={text} is not a number that fits");
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
