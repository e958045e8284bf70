//! Running a model.

/// Explores `f` with at most `preemptions` preemptions per execution unless `LOOM_MAX_PREEMPTIONS` says otherwise.
/// Most known races need two; three is what fits the time that the whole suite has.
pub(crate) fn check(preemptions: impl Into<Option<usize>>, f: impl Fn() + Sync + Send + 'static) {
    let mut b = loom::model::Builder::new();
    if std::env::var_os("LOOM_MAX_PREEMPTIONS").is_none() {
        b.preemption_bound = preemptions.into();
    }
    b.max_branches = 10_000;
    b.check(f);
}
