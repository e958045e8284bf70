//! `top [SECONDS]`: two looks some time apart, and who ran most between them.

#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use super::question;
use super::status::PIECE;
use super::tables::LONGEST_NAME;
use super::text::{age, clean, count, counted, table};
use super::{Answer, Begun, When};
use crate::inspect::{Look, Share, Tops};

/// Tasks and classes that are shown.
const MOST: usize = 20;
const LONGEST: Duration = Duration::from_secs(60);
const SHORTEST: Duration = Duration::from_millis(10);
/// Tasks are written that long at a time: one that runs may take a while to show its stack.
const STEP: Duration = Duration::from_millis(20);

/// How long to look for: `2`, `0.5`, `200ms`; `usual` if nothing is said.
pub(super) fn span(command: &str, words: &[&str], usual: Duration) -> Result<Duration, String> {
    let wrong = |word: &str| {
        format!(
            "{command} wants a time from {} to {}, and \"{word}\" is none; write for instance {command} 2",
            age(SHORTEST),
            LONGEST.as_secs()
        )
    };
    match words {
        [] => Ok(usual),
        [word] => {
            let seconds = word.bytes().all(|b| b.is_ascii_digit() || b == b'.').then(|| format!("{word}s"));
            let time = question::duration(seconds.as_deref().unwrap_or(word)).map_err(|_| wrong(word))?;
            if (SHORTEST..=LONGEST).contains(&time) { Ok(time) } else { Err(wrong(word)) }
        }
        [_, more, ..] => {
            Err(format!("{command} takes one time, not \"{more}\" as well; write for instance {command} 2"))
        }
    }
}

/// `top [SECONDS]`
pub(super) fn top(words: &[&str]) -> Begun {
    let span = span("top", words, Duration::from_secs(1))?;
    Ok(Box::new(Top { span, begun: Instant::now(), phase: Phase::First(Look::new()) }))
}

/// Two looks with a pause between them, for whoever tells what came of them in another way.
#[cfg(feature = "serde")]
pub(super) struct Watching {
    span: Duration,
    begun: Instant,
    first: Option<Look>,
    second: Option<Look>,
}

#[cfg(feature = "serde")]
impl Watching {
    pub(super) fn new(words: &[&str]) -> Result<Watching, String> {
        let span = span("top", words, Duration::from_secs(1))?;
        Ok(Watching { span, begun: Instant::now(), first: Some(Look::new()), second: None })
    }

    /// When to go on; `Err` with what came of it, at most `most` tasks of it.
    pub(super) fn more(&mut self, most: usize) -> Result<When, Option<Tops>> {
        if let Some(mut second) = self.second.take() {
            if !second.more(PIECE) {
                return Err(second.tops(most));
            }
            self.second = Some(second);
            return Ok(When::Now);
        }
        let pause = When::NotBefore(self.begun + self.span);
        match self.first.take() {
            Some(mut first) => {
                if first.more(PIECE) {
                    self.first = Some(first);
                    return Ok(When::Now);
                }
                if self.begun.elapsed() < self.span {
                    // Taken up again when the time is over.
                    self.first = Some(first);
                    return Ok(pause);
                }
                self.second = Some(Look::after(first));
                Ok(When::Now)
            }
            None => Err(None),
        }
    }
}

enum Phase {
    First(Look),
    Pause(Look),
    Second(Look),
    /// Figures of workers and classes.
    Tables(Box<Tops>, Box<dyn Answer>),
    Tasks(Box<Tops>, std::vec::IntoIter<Share>),
    Over,
}

struct Top {
    span: Duration,
    begun: Instant,
    phase: Phase,
}

impl Answer for Top {
    fn more(&mut self, out: &mut Vec<u8>) -> bool {
        self.phase = match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::First(mut look) => {
                if look.more(PIECE) {
                    Phase::First(look)
                } else {
                    out.extend_from_slice(format!("looking for {}\n", age(self.span)).as_bytes());
                    Phase::Pause(look)
                }
            }
            Phase::Pause(look) => Phase::Second(Look::after(look)),
            Phase::Second(mut look) => {
                if look.more(PIECE) {
                    Phase::Second(look)
                } else {
                    match look.tops(MOST) {
                        Some(tops) => {
                            let tables = figures(&tops);
                            Phase::Tables(Box::new(tops), tables)
                        }
                        None => Phase::Over,
                    }
                }
            }
            Phase::Tables(mut tops, mut tables) => {
                if tables.more(out) {
                    Phase::Tables(tops, tables)
                } else {
                    let tasks = std::mem::take(&mut tops.tasks).into_iter();
                    if tasks.len() > 0 {
                        out.extend_from_slice(b"\nshare      ran  task\n");
                    }
                    Phase::Tasks(tops, tasks)
                }
            }
            Phase::Tasks(tops, tasks) => write_tasks(tops, tasks, out),
            Phase::Over => Phase::Over,
        };
        !matches!(self.phase, Phase::Over)
    }

    fn when(&self) -> When {
        match self.phase {
            Phase::Pause(_) => When::NotBefore(self.begun + self.span),
            _ => When::Now,
        }
    }
}

fn percent(part: Duration, of: Duration) -> String {
    format!("{:.0}%", 100.0 * part.as_secs_f64() / of.as_secs_f64().max(1e-9))
}

fn figures(tops: &Tops) -> Box<dyn Answer> {
    let of = tops.between;
    let head = format!(
        "{}: {} ran; the process used {} of a CPU\n\n",
        age(of),
        counted(tops.ran, "task", "tasks"),
        percent(tops.cpu, of)
    );
    let several = tops.workers.iter().any(|w| w.runtime > 0);
    let row = |cells: [&str; 4]| cells.map(str::to_owned).to_vec();
    let mut cells = vec![row(["worker", "busy", "CPU", "slices"])];
    for w in &tops.workers {
        let place = if several { format!("{}/{}", w.runtime, w.index) } else { w.index.to_string() };
        let cpu = w.cpu.map_or_else(|| "?".to_owned(), |cpu| percent(cpu, of));
        cells.push(vec![place, percent(w.busy.min(of), of), cpu, count(w.slices)]);
    }
    if !tops.classes.is_empty() {
        cells.push(Vec::new());
        cells.push(row(["class", "share", "ran", ""]));
    }
    for (class, ran) in &tops.classes {
        cells.push(vec![clean(class, LONGEST_NAME), percent(*ran, of), age(*ran), String::new()]);
    }
    table(&head, cells)
}

/// A line each; those that ended meanwhile have only their number left.
fn write_tasks(tops: Box<Tops>, mut tasks: std::vec::IntoIter<Share>, out: &mut Vec<u8>) -> Phase {
    let begun = Instant::now();
    let mut text = String::new();
    while begun.elapsed() < STEP {
        let Some(share) = tasks.next() else {
            if tops.ran > MOST as u64 {
                let _ = writeln!(text, "and {} more", count(tops.ran - MOST as u64));
            }
            out.extend_from_slice(text.as_bytes());
            return Phase::Over;
        };
        let _ = write!(text, "{:>5}  {:>7}  ", percent(share.ran(), tops.between), age(share.ran()));
        let _ = match share.task() {
            Some(task) => writeln!(text, "{task}"),
            None => writeln!(text, "#{} has ended", share.id),
        };
    }
    out.extend_from_slice(text.as_bytes());
    Phase::Tasks(tops, tasks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_to_look_for() {
        let of = |word: &str| span("top", &[word], Duration::ZERO);
        for (word, ms) in [("1", 1000), ("0.5", 500), ("200ms", 200), ("1m", 60_000), ("60", 60_000), ("10ms", 10)] {
            assert_eq!(of(word), Ok(Duration::from_millis(ms)), "{word}");
        }
        assert_eq!(span("top", &[], Duration::from_secs(1)), Ok(Duration::from_secs(1)));
        for word in ["61", "0", "9ms", "-1", "soon", "", "1h"] {
            let error = of(word).expect_err(word);
            assert_eq!(
                error,
                format!("top wants a time from 10ms to 60, and \"{word}\" is none; write for instance top 2")
            );
        }
        assert!(span("top", &["1", "2"], Duration::ZERO).is_err_and(|e| e.contains("not \"2\" as well")));
    }
}
