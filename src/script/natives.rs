//! Functions of the language whose work or result is not bounded by their arguments, or that may panic or run text, done here
//! in their place.
//!
//! The engine looks at sizes after a function has returned, and counts no steps within one. So each of its functions was looked
//! at: nearly all do work in proportion to the values that they are given, which are bounded. Those that do not are
//!
//! | function | why |
//! |---|---|
//! | `replace` | its result may be the square of its arguments |
//! | `pad` | an empty padding never ends; sizes are multiplied without a look at overflow |
//! | `split`, `split_rev`, `to_chars` | a piece takes fifty times the memory of its letter |
//! | `contains`, `index_of` of lists | copies the value that is looked for once for each element |
//! | `sort`, `order` and their kin | the sorting of `std` panics if the comparison contradicts itself |
//! | `parse_json` | evaluates its text |
//! | `sleep` | nobody could end it |
//!
//! What takes closures has no bound of its own: the steps of the closures are counted, see [`Control`](super::control::Control).
//!
//! Invariant: what is registered here has the types of the engine's own function, so that it is found first.
//!
//! Must not know: who evaluates what.

#![forbid(unsafe_code)]

use std::cmp::Ordering;

use rhai::{
    Array, Dynamic, Engine, EvalAltResult, FnPtr, FuncRegistration, ImmutableString, NativeCallContext, Position,
};

use super::engine::{Failure, dynamic};
use super::limits::Limits;
use super::shallow::equal;
use crate::value::json;

type Text = ImmutableString;
type Given<T> = Result<T, Failure>;

fn too_large(what: &str) -> Failure {
    EvalAltResult::ErrorDataTooLarge(what.to_owned(), Position::NONE).into()
}

/// In the place of the engine's own.
pub(super) fn replace(engine: &mut Engine, limits: Limits) {
    strings(engine, limits);
    pieces(engine, limits.list);
    lists(engine, limits);
    sorting(engine);
    let most = limits.list + limits.map;
    engine.register_fn("parse_json", move |text: Text| -> Given<Dynamic> {
        dynamic(&json::parse(&text, most).map_err(|e| format!("parse_json: {e}"))?, 0)
    });
}

fn strings(engine: &mut Engine, limits: Limits) {
    let most = limits.text;
    engine
        .register_fn("replace", move |s: &mut Text, old: Text, new: Text| replaced(s, &old, &new, most))
        .register_fn("replace", move |s: &mut Text, old: Text, new: char| replaced(s, &old, &new.to_string(), most))
        .register_fn("replace", move |s: &mut Text, old: char, new: Text| replaced(s, &old.to_string(), &new, most))
        .register_fn("replace", move |s: &mut Text, old: char, new: char| {
            replaced(s, &old.to_string(), &new.to_string(), most)
        })
        .register_fn("pad", move |s: &mut Text, len: i64, with: char| padded(s, len, &with.to_string(), most))
        .register_fn("pad", move |s: &mut Text, len: i64, with: Text| padded(s, len, &with, most));
}

fn replaced(s: &mut Text, old: &str, new: &str, most: usize) -> Given<()> {
    let times = s.matches(old).count();
    // What is taken out is there, so this does not go below zero.
    let size = new.len().checked_mul(times).and_then(|added| added.checked_add(s.len() - old.len() * times));
    if size.is_none_or(|size| size > most) {
        return Err(too_large("Length of string"));
    }
    if times > 0 {
        *s = s.replace(old, new).into();
    }
    Ok(())
}

/// Appends `with` until there are `len` characters.
fn padded(s: &mut Text, len: i64, with: &str, most: usize) -> Given<()> {
    let Ok(len) = usize::try_from(len) else { return Ok(()) };
    // No character has less than a byte.
    if len > most {
        return Err(too_large("Length of string"));
    }
    let missing = len.saturating_sub(s.chars().count());
    if missing == 0 {
        return Ok(());
    }
    if with.is_empty() {
        return Err("pad: there is nothing to fill up with".into());
    }
    let letters = with.chars().count();
    let (times, rest) = (missing / letters, missing % letters);
    let rest = with.char_indices().nth(rest).map_or("", |(end, _)| &with[..end]);
    let added = times.saturating_mul(with.len()).saturating_add(rest.len());
    if added.saturating_add(s.len()) > most {
        return Err(too_large("Length of string"));
    }
    *s = format!("{s}{}{rest}", with.repeat(times)).into();
    Ok(())
}

/// A list of these, unless they are too many.
fn gathered<T: Into<Dynamic>>(all: impl Iterator<Item = T>, most: usize) -> Given<Array> {
    let list: Array = all.take(most + 1).map(Into::into).collect();
    if list.len() > most { Err(too_large("Size of array/BLOB")) } else { Ok(list) }
}

/// A function that leaves its first argument as it is, so that it may be a constant.
macro_rules! pure {
    ($engine:expr, $name:expr, $function:expr) => {
        FuncRegistration::new($name).with_purity(true).register_into_engine($engine, $function)
    };
}

/// Texts into lists.
fn pieces(engine: &mut Engine, most: usize) {
    // Nothing has one piece: nothing.
    let whole = |s: &Text| -> Given<Array> { Ok(vec![s.clone().into()]) };
    let times = |n: i64| usize::try_from(n).unwrap_or(0).max(1);
    pure!(engine, "to_chars", move |s: &mut Text| gathered(s.chars(), most));
    pure!(engine, "split", move |s: &mut Text| {
        if s.is_empty() { whole(s) } else { gathered(s.split_whitespace().map(Text::from), most) }
    });
    // By a text or by a character, from either end, all or so many.
    macro_rules! by {
        ($name:literal, $all:ident, $some:ident) => {
            pure!(engine, $name, move |s: &mut Text, by: Text| {
                if s.is_empty() { whole(s) } else { gathered(s.$all(by.as_str()).map(Text::from), most) }
            });
            pure!(engine, $name, move |s: &mut Text, by: char| {
                if s.is_empty() { whole(s) } else { gathered(s.$all(by).map(Text::from), most) }
            });
            pure!(engine, $name, move |s: &mut Text, by: Text, n: i64| {
                if s.is_empty() { whole(s) } else { gathered(s.$some(times(n), by.as_str()).map(Text::from), most) }
            });
            pure!(engine, $name, move |s: &mut Text, by: char, n: i64| {
                if s.is_empty() { whole(s) } else { gathered(s.$some(times(n), by).map(Text::from), most) }
            });
        };
    }
    by!("split", split, splitn);
    by!("split_rev", rsplit, rsplitn);
}

fn lists(engine: &mut Engine, limits: Limits) {
    engine.register_fn("pad", move |list: &mut Array, len: i64, with: Dynamic| -> Given<()> {
        let Ok(len) = usize::try_from(len) else { return Ok(()) };
        if len > limits.list {
            return Err(too_large("Size of array/BLOB"));
        }
        let missing = len.saturating_sub(list.len());
        let (elements, entries, text) = size(&with);
        if missing.saturating_mul(1 + elements) > limits.list {
            return Err(too_large("Size of array/BLOB"));
        }
        if missing.saturating_mul(entries) > limits.map {
            return Err(too_large("Size of object map"));
        }
        if missing.saturating_mul(text) > limits.text {
            return Err(too_large("Length of string"));
        }
        list.resize(len.max(list.len()), with);
        Ok(())
    });
    let find = |list: &Array, wanted: &Dynamic, start: i64| -> Given<Option<usize>> {
        let start = match usize::try_from(start) {
            Ok(start) => start,
            Err(_) => list.len().saturating_sub(usize::try_from(start.unsigned_abs()).unwrap_or(usize::MAX)),
        };
        for (n, element) in list.iter().enumerate().skip(start) {
            if equal(element, wanted, 0)? {
                return Ok(Some(n));
            }
        }
        Ok(None)
    };
    let index = |found: Option<usize>| found.and_then(|n| i64::try_from(n).ok()).unwrap_or(-1);
    pure!(engine, "contains", move |list: &mut Array, wanted: Dynamic| -> Given<bool> {
        Ok(find(list, &wanted, 0)?.is_some())
    });
    pure!(engine, "index_of", move |list: &mut Array, wanted: Dynamic| -> Given<i64> {
        Ok(index(find(list, &wanted, 0)?))
    });
    pure!(engine, "index_of", move |list: &mut Array, wanted: Dynamic, start: i64| -> Given<i64> {
        Ok(index(find(list, &wanted, start)?))
    });
}

/// Elements of lists, entries of maps and bytes of text in a value.
fn size(value: &Dynamic) -> (usize, usize, usize) {
    let add = |a: (usize, usize, usize), b: (usize, usize, usize)| (a.0 + b.0, a.1 + b.1, a.2 + b.2);
    if let Ok(list) = value.as_array_ref() {
        return list.iter().fold((list.len(), 0, 0), |sum, value| add(sum, size(value)));
    }
    if let Ok(map) = value.as_map_ref() {
        return map.values().fold((0, map.len(), 0), |sum, value| add(sum, size(value)));
    }
    if let Ok(bytes) = value.as_blob_ref() {
        return (bytes.len(), 0, 0);
    }
    (0, 0, value.as_immutable_string_ref().map_or(0, |text| text.len()))
}

fn sorting(engine: &mut Engine) {
    let by = |ctx: &NativeCallContext<'_>, list: &Array, f: &FnPtr| {
        sorted(list, |a, b| compared(f.call_raw(ctx, None, [a.clone(), b.clone()])?))
    };
    for name in ["sort", "sort_by"] {
        engine.register_fn(name, move |ctx: NativeCallContext<'_>, list: &mut Array, f: FnPtr| -> Given<()> {
            *list = by(&ctx, list, &f)?;
            Ok(())
        });
    }
    engine.register_fn("sort", move |ctx: NativeCallContext<'_>, list: &mut Array, f: Text| -> Given<()> {
        *list = by(&ctx, list, &FnPtr::new(f)?)?;
        Ok(())
    });
    for name in ["order", "order_by"] {
        pure!(engine, name, move |ctx: NativeCallContext<'_>, list: &mut Array, f: FnPtr| -> Given<Array> {
            by(&ctx, list, &f)
        });
    }
    engine.register_fn("sort", |list: &mut Array| -> Given<()> {
        *list = sorted(list, natural)?;
        Ok(())
    });
    engine.register_fn("sort_desc", |list: &mut Array| -> Given<()> {
        *list = sorted(list, |a, b| natural(b, a))?;
        Ok(())
    });
    pure!(engine, "order", |list: &mut Array| sorted(list, natural));
    pure!(engine, "order_desc", |list: &mut Array| sorted(list, |a, b| natural(b, a)));
}

/// What a comparison said: less than zero or `true` if the first comes first.
fn compared(said: Dynamic) -> Given<Ordering> {
    if let Ok(n) = said.as_int() {
        return Ok(n.cmp(&0));
    }
    if let Ok(x) = said.as_float() {
        return Ok(x.partial_cmp(&0.0).unwrap_or(Ordering::Equal));
    }
    match said.as_bool() {
        Ok(true) => Ok(Ordering::Less),
        Ok(false) => Ok(Ordering::Greater),
        Err(kind) => {
            Err(format!("sorting: a comparison has to give a number or a truth value, and gave {kind}").into())
        }
    }
}

/// The order of values that have one.
fn natural(a: &Dynamic, b: &Dynamic) -> Given<Ordering> {
    if let (Ok(a), Ok(b)) = (a.as_int(), b.as_int()) {
        return Ok(a.cmp(&b));
    }
    let number = |x: &Dynamic| x.as_float().or_else(|_| x.as_int().map(|n| n as f64)).ok();
    if let (Some(a), Some(b)) = (number(a), number(b)) {
        // What is no number comes last.
        return Ok(a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan())));
    }
    if let (Ok(a), Ok(b)) = (a.as_immutable_string_ref(), b.as_immutable_string_ref()) {
        return Ok(a.as_str().cmp(b.as_str()));
    }
    if let (Ok(a), Ok(b)) = (a.as_char(), b.as_char()) {
        return Ok(a.cmp(&b));
    }
    if let (Ok(a), Ok(b)) = (a.as_bool(), b.as_bool()) {
        return Ok(a.cmp(&b));
    }
    if a.is_unit() && b.is_unit() {
        return Ok(Ordering::Equal);
    }
    Err(format!("sorting: {} and {} have no order", a.type_name(), b.type_name()).into())
}

/// The list in order, by merging; what is equal stays in its order. Any comparison will do: one that contradicts itself gives
/// some order.
fn sorted(list: &Array, compare: impl Fn(&Dynamic, &Dynamic) -> Given<Ordering>) -> Given<Array> {
    let mut from: Vec<&Dynamic> = list.iter().collect();
    let mut to = Vec::with_capacity(from.len());
    let mut width = 1;
    while width < from.len() {
        to.clear();
        for run in from.chunks(2 * width) {
            let (mut left, mut right) = run.split_at(width.min(run.len()));
            while let ([l, ..], [r, ..]) = (left, right) {
                if compare(r, l)? == Ordering::Less {
                    to.push(*r);
                    right = &right[1..];
                } else {
                    to.push(*l);
                    left = &left[1..];
                }
            }
            to.extend_from_slice(left);
            to.extend_from_slice(right);
        }
        std::mem::swap(&mut from, &mut to);
        width *= 2;
    }
    Ok(from.into_iter().cloned().collect())
}
