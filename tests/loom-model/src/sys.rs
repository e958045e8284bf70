//! What the shipped files see as `crate::sys`.

pub(crate) mod atomic;
