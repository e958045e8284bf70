//! Running a model.

/// Explores `f` with at most `preemptions` preemptions per execution unless `LOOM_MAX_PREEMPTIONS` says otherwise.
/// Most known races need two; three is what fits the time that the whole suite has.
pub(crate) fn check(preemptions: impl Into<Option<usize>>, f: impl Fn() + Sync + Send + 'static) {
    let mut b = loom::model::Builder::new();
    if std::env::var_os("LOOM_MAX_PREEMPTIONS").is_none() {
        b.preemption_bound = bound(preemptions.into());
    }
    b.max_branches = 10_000;
    b.check(f);
}

/// As many preemptions in the long form, one in the short one: for models of which each takes ten seconds of it otherwise.
pub(crate) fn in_the_long_form(preemptions: usize) -> usize {
    if std::env::var_os("LOOM_LONG").is_some() { preemptions } else { preemptions.min(1) }
}

/// The test's own bound (`None`: no bound) in the long form, `LOOM_LONG=1`, as `.ci/loom` and `.ci/soak` run it. With the other
/// tests of the workspace the few that look further than two preemptions would take a minute and a half of two CPUs.
fn bound(own: Option<usize>) -> Option<usize> {
    if std::env::var_os("LOOM_LONG").is_some() {
        return own;
    }
    Some(own.map_or(3, |own| own.min(2)))
}
