//! Points and probes as the console shows them.

#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::attach::{Attached, attach_to};
use super::running::Probe;
use super::session::{Home, SessionProbes};
use super::stop::{self, What};
use super::text::plain;
use super::trace::{self, Trace};
use super::{patch, pattern, registry, text};
use crate::inspect::condensed::short_file;
use crate::observe::{Point, PointKind};

/// What is to be attached, as it was typed.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Wanted {
    pub(crate) pattern: String,
    pub(crate) instruments: String,
    pub(crate) condition: Option<String>,
    pub(crate) lifespan: Option<Duration>,
    pub(crate) hits: Option<u64>,
    pub(crate) every: Option<u64>,
    pub(crate) per_second: Option<u32>,
    pub(crate) later: bool,
}

/// Attaches it, for a session or, without one, for as long as its limits allow, unless it is `still` not wanted when all is ready. What
/// to say of it. Runs code of the program's.
pub(crate) fn attach(wanted: &Wanted, session: Option<&Home>, still: &dyn Fn() -> bool) -> Result<String, String> {
    let mut attach = attach_to(&*wanted.pattern);
    if let Some(session) = session {
        attach = attach.of_session(session.id, &session.sink);
    }
    attach = attach.instruments(&wanted.instruments);
    if let Some(condition) = &wanted.condition {
        attach = attach.condition(condition);
    }
    if let Some(lifespan) = wanted.lifespan {
        attach = attach.lifespan(lifespan);
    }
    if let Some(hits) = wanted.hits {
        attach = attach.hits(hits);
    }
    if let Some(every) = wanted.every {
        attach = attach.every(every);
    }
    if let Some(most) = wanted.per_second {
        attach = attach.per_second(most);
    }
    if wanted.later {
        attach = attach.later();
    }
    let attached = attach.start().map_err(|e| e.to_string())?;
    let mut said = what_and_where(&attached);
    if let Some(lifespan) = wanted.lifespan {
        let _ = write!(said, ", for {}", text::duration(lifespan));
    }
    if let Some(hits) = wanted.hits {
        let _ = write!(said, ", {hits} hits");
    }
    if session.is_some() {
        said.push_str("; it ends with this session");
    }
    if still() {
        attached.leave();
    }
    Ok(said)
}

/// `probe 3 on app::cache::get: log hist`.
pub(super) fn what_and_where(attached: &Attached) -> String {
    let points = attached.points();
    let names = match &*points {
        [] => "a point that there is not yet".to_owned(),
        [one] => one.name().to_owned(),
        some => format!("{} points", some.len()),
    };
    plain(&format!("probe {} on {names}: {}", attached.id(), attached.written()))
}

/// Applies a bundle that was compiled in, or what a file or a directory of specifications says. A line for each probe. Runs code
/// of the program's; a bundle that is not wanted any more when that has come back is taken away.
pub(crate) fn apply(what: &str, still: &dyn Fn() -> bool) -> Result<Vec<String>, String> {
    if let Some(name) = what.strip_prefix("patch:") {
        let (ids, before) = patch::apply(name, still)?;
        let already = if before { " already" } else { "" };
        return Ok(vec![match &*ids {
            [] => format!("patch {name} is applied{already}, and has attached no probe"),
            [one] => format!("patch {name} is applied{already}: probe {one}"),
            some => {
                let some: Vec<String> = some.iter().map(u64::to_string).collect();
                format!("patch {name} is applied{already}: probes {}", some.join(", "))
            }
        }]);
    }
    #[cfg(feature = "specs")]
    return super::specs::apply_path(what);
    #[cfg(not(feature = "specs"))]
    Err(format!("{what}: this program was built without the feature \"specs\" of coro-rt; it can apply patch:NAME"))
}

/// Begins a trace, for a session or, without one, for as long as its lifespan allows. What to say of it.
pub(crate) fn trace(trace: Trace, session: Option<&Home>) -> Result<String, String> {
    let (name, lifespan) = (trace.name(), trace.lifespan);
    let trace = match session {
        Some(session) => trace.of_session(session.id, &session.sink),
        None => trace,
    };
    let attached = trace.start().map_err(|e| e.to_string())?;
    let left = lifespan.map(|lifespan| format!(", for {}", text::duration(lifespan))).unwrap_or_default();
    let with = if session.is_some() { "; it ends with this session" } else { "" };
    Ok(format!("probe {} traces {name}{left}{with}", attached.leave()))
}

/// Ends the traces of a session, or every one.
pub(crate) fn trace_off(session: Option<&SessionProbes>) -> String {
    let of = |probe: &&Arc<Probe>| session.is_none_or(|session| probe.session == Some(session.id));
    let all = registry::probes();
    let traces = all.iter().filter(|probe| probe.written == trace::WRITTEN).filter(of);
    match traces.filter(|probe| registry::detach(probe.id(), "taken away")).count() {
        0 if session.is_some() => "this session has no trace; trace off all ends those of others".to_owned(),
        0 => "there was no trace".to_owned(),
        1 => "1 trace is taken away".to_owned(),
        n => format!("{n} traces are taken away"),
    }
}

/// Has those go on who stand at a breakpoint: one task, or all of that probe; with their own result, that one, or that error.
pub(crate) fn release(id: u64, task: Option<u64>, answer: Option<Result<&str, &str>>) -> Result<String, String> {
    let mut stops = stop::stops(Some(id));
    stops.retain(|stop| task.is_none_or(|task| stop.task == task));
    let what = answer.map(|answer| match answer {
        Ok(text) => What::Returning(text.to_owned()),
        Err(text) => What::Failing(text.to_owned()),
    });
    stops.retain(|stop| stop.release(what.clone()));
    match (&*stops, task) {
        ([], None) => Err(format!("nobody stands at probe {id}; probe show {id} says who does")),
        ([], Some(task)) => Err(format!("#{task} does not stand at probe {id}; probe show {id} says who does")),
        ([one], _) => Ok(format!("#{} goes on", one.task)),
        (all, _) => Ok(format!("{} tasks go on", all.len())),
    }
}

/// Takes one away.
pub(crate) fn detach(id: u64) -> Result<String, String> {
    if registry::detach(id, "taken away") {
        return Ok(format!("probe {id} is taken away"));
    }
    match registry::ended().iter().rev().find(|ended| ended.id == id) {
        Some(ended) => Err(format!("probe {id} is over already: {}", plain(&ended.why))),
        None => Err(format!("there is no probe {id}; probe show lists those that there are")),
    }
}

/// Takes all of them away.
pub(crate) fn detach_all() -> String {
    let all = registry::probes();
    let n = all.iter().filter(|probe| registry::detach(probe.id(), "taken away")).count();
    registry::let_everybody_go();
    match n {
        0 => "there was no probe".to_owned(),
        1 => "1 probe is taken away".to_owned(),
        n => format!("{n} probes are taken away"),
    }
}

/// The points that a pattern names, a line each, or what is wrong with it.
pub(crate) fn points(wanted: Option<&str>) -> Result<Vec<String>, String> {
    let all = registry::points();
    if wanted.is_none() && !all.iter().any(|point| pattern::is_of_program(point)) {
        return Err("this program has no probe points; #[coro::probe] on a function makes one; probe list coro::* shows those of coro".to_owned());
    }
    let probes = registry::probes();
    let named: Vec<&Point> = all.iter().copied().filter(|point| pattern::names(wanted.unwrap_or("*"), point)).collect();
    if let Some(wanted) = wanted.filter(|_| named.is_empty()) {
        let near = pattern::nearest(wanted, all.into_iter());
        return Err(match &*near {
            [] => format!("no probe point is called {wanted}; probe list shows all"),
            near => plain(&format!("no probe point is called {wanted}; there is {}", near.join(", "))),
        });
    }
    Ok(named.into_iter().map(|point| line_of(point, &probes)).collect())
}

fn line_of(point: &Point, probes: &[Arc<Probe>]) -> String {
    let values = match point.kind() {
        PointKind::Mark if point.arguments().is_empty() => " mark".to_owned(),
        PointKind::Mark => format!(" mark {}", point.arguments().join(", ")),
        PointKind::Function => format!("({})", point.arguments().join(", ")),
    };
    let mut line = format!("{}{values}  {}:{}", point.name(), short_file(point.file()), point.line());
    let at = probes.iter().filter(|probe| probe.points().iter().any(|p| std::ptr::eq(*p, point)));
    let ids: Vec<String> = at.map(|probe| probe.id().to_string()).collect();
    if !ids.is_empty() {
        let _ = write!(line, "  <- probe {}", ids.join(", "));
    }
    match registry::wrappers_at(point) {
        0 => {}
        1 => line.push_str("  <- wrapped"),
        n => drop(write!(line, "  <- wrapped {n} times")),
    }
    plain(&line)
}

/// Every probe in a line, and the last ones that are over.
pub(crate) fn probes() -> Vec<String> {
    let mut lines: Vec<String> = registry::probes().iter().map(|probe| head(probe)).collect();
    let now = SystemTime::now();
    let ended = registry::ended();
    for ended in ended.iter().rev().take(10) {
        let ago = text::duration(now.duration_since(ended.at).unwrap_or_default());
        let line = format!("{} {}: over {ago} ago, {} hits: {}", ended.id, ended.name, ended.hits, ended.why);
        lines.push(plain(&line));
    }
    lines
}

fn head(probe: &Probe) -> String {
    let (hits, suppressed) = probe.hits();
    let points = probe.points();
    let mut line = format!("{} {}: {}", probe.id(), probe.name, probe.written);
    if let Some(filter) = &probe.filter_text {
        let _ = write!(line, " if {filter}");
    }
    let _ = match points.len() {
        1 => write!(line, "; {hits} hits"),
        n => write!(line, "; {n} points, {hits} hits"),
    };
    if suppressed > 0 {
        let _ = write!(line, ", {suppressed} too fast");
    }
    if probe.cramped() > 0 {
        let _ = write!(line, ", {} left out as the task had too little stack left", probe.cramped());
    }
    if let Some(most) = probe.limits.hits {
        let _ = write!(line, " of {most}");
    }
    if let Some(left) = probe.left() {
        let _ = write!(line, ", {} left", text::duration(left));
    }
    if probe.session.is_some() {
        line.push_str(", of a session");
    }
    plain(&line)
}

/// One probe with what it has found, in lines. Runs code of the program's.
pub(crate) fn one(id: u64) -> Result<Vec<String>, String> {
    if let Some(probe) = registry::probes().into_iter().find(|probe| probe.id() == id) {
        let mut lines = vec![head(&probe)];
        lines.extend(registry::found(&probe).lines().map(|line| format!("  {line}")));
        lines.extend(probe.points().into_iter().map(|point| format!("  at {}", line_of(point, &[]))));
        return Ok(lines);
    }
    let Some(ended) = registry::ended().into_iter().rev().find(|ended| ended.id == id) else {
        return Err(format!("there is no probe {id}; probe show lists those that there are"));
    };
    let head = format!("{} {}: over, {} hits: {}", ended.id, ended.name, ended.hits, ended.why);
    let mut lines = vec![plain(&head)];
    lines.extend(registry::found_by_ended(id).lines().map(|line| format!("  {line}")));
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrapped_is_seen_in_the_list() {
        let _point = Point::register("view_tests::wrapped", &["n"]);
        let line = || points(Some("view_tests::wrapped")).expect("it is there").remove(0);
        let wrap = || crate::probe::wrap!("view_tests::wrapped", |f, n: u8| -> u8 { f(n) }).start().expect("it can be");
        assert!(line().starts_with("view_tests::wrapped(n)  ") && !line().contains("<-"), "{}", line());
        let one = wrap();
        assert!(line().ends_with("  <- wrapped"), "{}", line());
        let two = wrap();
        assert!(line().ends_with("  <- wrapped 2 times"), "{}", line());
        drop((one, two));
        assert!(!line().contains("<-"), "{}", line());
    }
}
