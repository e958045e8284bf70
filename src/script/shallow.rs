//! What the engine does to nested values by calling itself (to show, to compare, to write JSON), done to a bounded depth.
//!
//! Must not know: who evaluates what.

#![forbid(unsafe_code)]

use rhai::{Array, Dynamic, Engine, FnPtr, FuncRegistration, Map};

use super::engine::{DEEPEST, Failure, MOST_SHOWN, MOST_TEXT, MOST_VALUES, Taken};
use super::show;
use crate::value::Value;

/// In the place of what Rhai does by calling its functions for each level of a value.
pub(super) fn register(engine: &mut Engine) {
    // None of them changes its first argument, which may be a constant.
    let pure = |name: &str| FuncRegistration::new(name.to_owned()).with_purity(true);
    for name in ["to_string", "to_debug", "print", "debug"] {
        pure(name).register_into_engine(engine, |value: &mut Array| show::literal(&shown_list(value), MOST_SHOWN));
        pure(name).register_into_engine(engine, |value: &mut Map| show::literal(&taken_map(value), MOST_SHOWN));
        pure(name).register_into_engine(engine, |value: &mut FnPtr| format!("Fn({})", value.fn_name()));
    }
    // Rhai says `len`; who filters tasks thinks of `count`.
    pure("count").register_into_engine(engine, |value: &mut Array| value.len() as i64);
    pure("to_json").register_into_engine(engine, |value: &mut Map| to_json(value));
    pure("==").register_into_engine(engine, |a: &mut Array, b: Array| lists_equal(a, &b, 0));
    pure("!=").register_into_engine(engine, |a: &mut Array, b: Array| lists_equal(a, &b, 0).map(|equal| !equal));
    pure("==").register_into_engine(engine, |a: &mut Map, b: Map| maps_equal(a, &b, 0));
    pure("!=").register_into_engine(engine, |a: &mut Map, b: Map| maps_equal(a, &b, 0).map(|equal| !equal));
}

fn to_json(map: &Map) -> Result<String, Failure> {
    let mut taken = Taken::new(MOST_VALUES, MOST_TEXT);
    let value = taken.map(map, 0);
    match show::json(&value) {
        (text, false) if !taken.cut => Ok(text),
        _ => Err("to_json: too long or too deep".into()),
    }
}

fn shown_list(value: &Array) -> Value {
    Taken::new(MOST_SHOWN, MOST_TEXT).list(value, 0)
}

fn taken_map(value: &Map) -> Value {
    Taken::new(MOST_VALUES, MOST_TEXT).map(value, 0)
}

fn lists_equal(a: &Array, b: &Array, depth: usize) -> Result<bool, Failure> {
    if a.len() != b.len() {
        return Ok(false);
    }
    for (a, b) in a.iter().zip(b) {
        if !equal(a, b, depth + 1)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn maps_equal(a: &Map, b: &Map, depth: usize) -> Result<bool, Failure> {
    if a.len() != b.len() {
        return Ok(false);
    }
    for (name, a) in a {
        match b.get(name) {
            Some(b) if equal(a, b, depth + 1)? => {}
            _ => return Ok(false),
        }
    }
    Ok(true)
}

/// Whether two values within lists or maps are the same. What is no plain data equals nothing.
pub(super) fn equal(a: &Dynamic, b: &Dynamic, depth: usize) -> Result<bool, Failure> {
    if depth > DEEPEST {
        return Err(format!("too deep to be compared: at most {DEEPEST} levels").into());
    }
    if let (Ok(a), Ok(b)) = (a.as_array_ref(), b.as_array_ref()) {
        return lists_equal(&a, &b, depth);
    }
    if let (Ok(a), Ok(b)) = (a.as_map_ref(), b.as_map_ref()) {
        return maps_equal(&a, &b, depth);
    }
    if let (Ok(a), Ok(b)) = (a.as_immutable_string_ref(), b.as_immutable_string_ref()) {
        return Ok(a.as_str() == b.as_str());
    }
    let number = |x: &Dynamic| x.as_float().or_else(|_| x.as_int().map(|n| n as f64)).ok();
    Ok(match (a.as_int(), b.as_int()) {
        (Ok(a), Ok(b)) => a == b,
        _ => match (number(a), number(b)) {
            (Some(a), Some(b)) => a == b,
            _ => {
                (a.is_unit() && b.is_unit())
                    || matches!((a.as_bool(), b.as_bool()), (Ok(a), Ok(b)) if a == b)
                    || matches!((a.as_char(), b.as_char()), (Ok(a), Ok(b)) if a == b)
            }
        },
    })
}
