//! Classes of tasks: by what counts and histograms are kept, so that a million task names do not become a million of them.
//!
//! A task's class is the name given at its spawn, else the place of its spawn. A class is a small number; there are at
//! most [`MOST`], and whatever comes after belongs to [`OTHER`]. Classes are never taken back.

#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::panic::Location;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU16, Ordering};
use std::sync::{Mutex, PoisonError};

/// How many classes there are at most, [`NONE`] and [`OTHER`] included.
pub(crate) const MOST: usize = 1000;
/// Not known yet.
pub(crate) const NONE: u16 = 0;
/// Everything for which there was no number left.
pub(crate) const OTHER: u16 = 1;

/// What a class is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Class {
    /// By name.
    Named(Box<str>),
    /// By spawn site: file, line and column.
    Site(&'static str, u32, u32),
}

impl std::fmt::Display for Class {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Class::Named(name) => f.write_str(name),
            Class::Site(file, line, _) => write!(f, "{file}:{line}"),
        }
    }
}

#[derive(Debug, Default)]
struct Table {
    numbers: HashMap<Class, u16>,
    classes: Vec<Class>,
}

static TABLE: Mutex<Option<Table>> = Mutex::new(None);

/// Sites whose number is known, by address. One site of the source can have several addresses.
const SITES: usize = 4096;
static SITE: [AtomicPtr<Location<'static>>; SITES] = [const { AtomicPtr::new(ptr::null_mut()) }; SITES];
static SITE_NUMBER: [AtomicU16; SITES] = [const { AtomicU16::new(NONE) }; SITES];
const PROBES: usize = 8;

fn number(class: Class) -> u16 {
    let mut guard = TABLE.lock().unwrap_or_else(PoisonError::into_inner);
    let table = guard.get_or_insert_with(Table::default);
    if let Some(n) = table.numbers.get(&class) {
        return *n;
    }
    let n = table.classes.len() + 2;
    if n >= MOST {
        return OTHER;
    }
    table.classes.push(class.clone());
    table.numbers.insert(class, n as u16);
    n as u16
}

/// The class of tasks that are spawned there.
pub(crate) fn of_site(site: &'static Location<'static>) -> u16 {
    let address = ptr::from_ref(site).cast_mut();
    let first = (address.addr() >> 3).wrapping_mul(0x9e37_79b9) >> 7;
    for i in 0..PROBES {
        let at = (first + i) % SITES;
        let there = SITE[at].load(Ordering::Acquire);
        if there == address {
            let n = SITE_NUMBER[at].load(Ordering::Acquire);
            if n != NONE {
                return n;
            }
        }
        if there.is_null() {
            break;
        }
    }
    let n = number(Class::Site(site.file(), site.line(), site.column()));
    for i in 0..PROBES {
        let at = (first + i) % SITES;
        if SITE[at].compare_exchange(ptr::null_mut(), address, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            SITE_NUMBER[at].store(n, Ordering::Release);
            break;
        }
    }
    n
}

/// The class with that name.
pub(crate) fn of_name(name: &str) -> u16 {
    number(Class::Named(name.into()))
}

/// What one worker knows of the numbers, so that a task's start takes no lock: the site that was asked for last, and names.
#[derive(Debug)]
pub(crate) struct Known {
    site: Cell<*const Location<'static>>,
    number: Cell<u16>,
    names: RefCell<HashMap<Box<str>, u16>>,
}

impl Known {
    pub(crate) fn new() -> Known {
        Known { site: Cell::new(ptr::null()), number: Cell::new(NONE), names: RefCell::default() }
    }

    /// As the function of that name.
    #[inline(always)]
    pub(crate) fn of_site(&self, site: &'static Location<'static>) -> u16 {
        if ptr::eq(self.site.get(), site) { self.number.get() } else { self.of_another(site) }
    }

    #[inline(never)]
    fn of_another(&self, site: &'static Location<'static>) -> u16 {
        let number = of_site(site);
        self.number.set(number);
        self.site.set(site);
        number
    }

    /// As the function of that name.
    pub(crate) fn of_name(&self, name: &str) -> u16 {
        let mut names = self.names.borrow_mut();
        if let Some(number) = names.get(name) {
            return *number;
        }
        let number = of_name(name);
        // Those without a number of their own have no end.
        if number != OTHER {
            names.insert(name.into(), number);
        }
        number
    }
}

/// What is called by that number; `None` for [`NONE`], [`OTHER`] and numbers that nobody has.
pub(crate) fn get(number: u16) -> Option<Class> {
    let guard = TABLE.lock().unwrap_or_else(PoisonError::into_inner);
    guard.as_ref()?.classes.get(usize::from(number).checked_sub(2)?).cloned()
}

/// How many numbers are in use; all are smaller than this.
pub(crate) fn count() -> u16 {
    let guard = TABLE.lock().unwrap_or_else(PoisonError::into_inner);
    guard.as_ref().map_or(2, |t| t.classes.len() as u16 + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_and_a_name_have_one_number_each() {
        #[track_caller]
        fn here() -> &'static Location<'static> {
            Location::caller()
        }
        let [a, b] = [here(), here()];
        assert_eq!(of_site(a), of_site(a));
        assert_ne!(of_site(a), of_site(b));
        assert_eq!(of_name("reader"), of_name("reader"));
        assert_ne!(of_name("reader"), of_site(a));
        assert_eq!(get(of_site(a)).unwrap().to_string(), format!("{}:{}", file!(), a.line()));
        assert_eq!(get(of_name("reader")), Some(Class::Named("reader".into())));
        assert_eq!((get(NONE), get(OTHER)), (None, None));
        let known = Known::new();
        for _ in 0..2 {
            assert_eq!((known.of_site(a), known.of_site(b)), (of_site(a), of_site(b)));
            assert_eq!(known.of_name("reader"), of_name("reader"));
        }
    }

    #[test]
    fn names_without_end_end_in_one_class() {
        let known = Known::new();
        let mut last = 0;
        for i in 0..2 * MOST {
            last = known.of_name(&format!("echo 10.0.0.1:{i}"));
        }
        assert_eq!(last, OTHER);
        assert!(known.names.borrow().len() <= MOST);
        assert!(usize::from(count()) <= MOST);
    }
}
