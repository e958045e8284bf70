//! Probes that are said in a file and not in the program: what should be there, kept apart from what is.
//!
//! A [`Spec`] says what one probe should be. A [`Manager`] makes it so, as often as it is asked: it attaches what is new, replaces
//! what has changed, takes away what has vanished, and leaves everything else alone, so that counts go on. What becomes of each one is in
//! its [`Applied`]. Where specs come from is a [`Store`]'s business: a [`File`] in TOML or JSON, a [`Directory`] of such, [`Memory`],
//! or one of the program's own, shared by many processes.
//!
//! The same is had without a line of code by `CORO_PROBES=file:PATH` in the environment, and at the console by `probe apply PATH`.
//!
//! # Examples
//! ```
//! use coro::probe::specs::{Manager, Spec};
//!
//! #[coro::probe]
//! fn lookup(key: &str) -> usize {
//!     key.len()
//! }
//!
//! let manager = Manager::new();
//! let specs = [Spec::new("calls", "lookup", "count"), Spec::new("wrong", "lokup", "count")];
//! let applied = manager.apply(specs.clone());
//! assert!(applied[0].to_string().starts_with("calls: attached as probe "));
//! assert!(applied[1].to_string().starts_with("wrong: no probe point is called lokup; there is "));
//! lookup("a");
//! // Nothing has changed: it goes on with what it has counted.
//! let again = manager.apply(specs);
//! assert!(again[0].to_string().starts_with("calls: goes on as probe "));
//! assert_eq!(manager.probe("calls", |probe| probe.hits().0), Some(1));
//! ```
//!
//! # What is kept
//! * **One that is wrong hinders no other.** A file that cannot be read, or is half written, leaves what it said before.
//! * **What is over stays over**: a probe whose instrument panicked or cost too much, whose condition failed, whose time or hits are
//!   over, or that somebody took away by hand is not attached again before its spec is edited. What could not be attached, because
//!   there is no such point or instrument yet, is tried again at every turn.
//!
//! Must not know: sessions, commands, the environment.

#![forbid(unsafe_code)]

mod files;
mod known;
mod manager;
mod read;
mod spec;
mod store;

pub use files::{Directory, File};
pub(crate) use known::{apply_path, watch_path};
pub use manager::{Applied, Manager, State};
pub use spec::Spec;
pub use store::{Entry, Listed, Memory, Store};
