//! What `#[coro::export]` registers: a table that the linker puts together from every crate of the program.
//!
//! Invariants: the table holds plain data, and nothing of the program runs when it is taken in; whatever is wrong with an
//! entry is told, and the others are taken.
//!
//! Must not know: the engine, who asks.

#![forbid(unsafe_code)]

use std::collections::btree_map::Entry;
use std::fmt;
use std::sync::Arc;

use super::function::{Function, Registry};
use super::name::refused;
use crate::sys::stderr;
use crate::value::{FromValue, IntoValue};

/// One entry, as the attribute makes it.
pub struct Export {
    /// How it is called in expressions.
    pub name: &'static str,
    /// The place of the attribute.
    pub site: &'static str,
    /// The function, not registered yet.
    pub make: fn() -> Function,
}

impl fmt::Debug for Export {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.name, self.site)
    }
}

/// All of the program's. The version is a part of its name, because the linker would join the tables of two versions of this
/// crate, whose entries differ.
#[linkme::distributed_slice]
pub static CORO_EXPORTS_0_1: [Export];

/// Refuses a name while the program is compiled.
///
/// # Panics
/// With the reason.
pub const fn check_name(name: &str) {
    if let Some(why) = refused(name) {
        panic!("{}", why);
    }
}

/// Has the compiler point at an argument that cannot be one.
pub const fn is_argument<T: FromValue>() {}

/// The same for a result.
pub const fn is_result<T: IntoValue>() {}

/// The function written without parentheses.
pub fn value(function: Function) -> Function {
    Function { value: true, ..function }
}

/// What the functions of the program are at first.
pub(super) fn exported() -> Registry {
    if cfg!(miri) {
        // It has no linker that could put the table together.
        return Registry::new();
    }
    take_in(CORO_EXPORTS_0_1.static_slice(), |wrong| stderr::write(&format!("coro: {wrong}\n")))
}

fn take_in(exports: &[Export], mut tell: impl FnMut(String)) -> Registry {
    let mut registry = Registry::new();
    let mut sites: Vec<(&str, &str)> = Vec::new();
    for Export { name, site, make } in exports {
        if let Some(why) = refused(name) {
            tell(format!("#[coro::export] at {site}: nothing can be called {name:?}: {why}"));
            continue;
        }
        match registry.entry((*name).to_owned()) {
            Entry::Vacant(place) => {
                let function = make();
                if let Some(why) = function.hidden() {
                    tell(format!("#[coro::export] at {site}: nothing can be called {name:?}: {why}"));
                    continue;
                }
                place.insert(Arc::new(function));
                sites.push((name, site));
            }
            Entry::Occupied(_) => {
                let first = sites.iter().find(|(taken, _)| taken == name).map_or("", |(_, site)| site);
                tell(format!("#[coro::export] at {site}: {name} is exported at {first} already, and that one counts"));
            }
        }
    }
    registry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_an_entry_is_told_and_the_others_are_taken() {
        let entry = |name, site, make| Export { name, site, make };
        let exports = [
            entry("let", "a.rs:1", || unreachable!("its name is refused")),
            entry("app.one", "b.rs:2", || Function::new("app.one", || 1)),
            entry("app.one", "c.rs:3", || unreachable!("the name is taken")),
            entry("two", "d.rs:4", || value(Function::new("two", || 2))),
        ];
        let mut told = Vec::new();
        let registry = take_in(&exports, |text| told.push(text));
        assert_eq!(registry.keys().collect::<Vec<_>>(), ["app.one", "two"]);
        assert_eq!((registry["app.one"].usage(), registry["two"].usage()), ("app.one()".into(), "two".into()));
        assert_eq!(
            told,
            [
                "#[coro::export] at a.rs:1: nothing can be called \"let\": the language of expressions uses that word",
                "#[coro::export] at c.rs:3: app.one is exported at b.rs:2 already, and that one counts",
            ]
        );
    }
}
