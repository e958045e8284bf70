//! Values as they go between the program and whoever asks it: expressions, and probes.
//!
//! Invariant: plain data, so that what somebody keeps can be handed from thread to thread.
//!
//! Must not know: the engine that evaluates, who asks.

#![forbid(unsafe_code)]

mod duration;
#[cfg(any(feature = "script", feature = "specs"))]
pub(crate) mod json;
mod words;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use duration::{age, duration};
pub(crate) use words::edits;

/// A value that an expression gives to the program's functions, or gets from them.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub enum Value {
    /// No value, `()`.
    #[default]
    Nothing,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// Text.
    Text(String),
    /// Values in a row.
    List(Vec<Value>),
    /// Values by name, shown in this order.
    Map(Vec<(String, Value)>),
}

impl Value {
    /// The value of something. What has no place in one (a number too large, an `Err`) becomes a text that says so.
    pub fn of(value: impl IntoValue) -> Value {
        value.into_value().unwrap_or_else(Value::Text)
    }

    /// A map of these.
    ///
    /// # Examples
    /// ```
    /// use coro::console::Value;
    /// let limits = Value::map([("clients", Value::of(100)), ("name", Value::of("db"))]);
    /// assert_eq!(limits.get("clients"), Some(&Value::Int(100)));
    /// ```
    pub fn map<K: Into<String>>(entries: impl IntoIterator<Item = (K, Value)>) -> Value {
        Value::Map(entries.into_iter().map(|(name, value)| (name.into(), value)).collect())
    }

    /// The value of that name in a map.
    pub fn get(&self, name: &str) -> Option<&Value> {
        match self {
            Value::Map(entries) => entries.iter().find(|(key, _)| key == name).map(|(_, value)| value),
            _ => None,
        }
    }

    /// What it is, in one word.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Value::Nothing => "nothing",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Float(_) => "float",
            Value::Text(_) => "text",
            Value::List(_) => "list",
            Value::Map(_) => "map",
        }
    }
}

/// What a function of the program may return to an expression.
///
/// Numbers, text, lists, maps (in the order of their names if they have none of their own), `Option` (`None` is `()`), durations (as seconds), and `Result`, whose error ends
/// the expression with its text.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be returned to an expression",
    label = "is not `coro::console::IntoValue`",
    note = "returned are numbers, text, lists, maps, `Option`, `Result` and `Duration` of such, and `coro::console::Value`"
)]
pub trait IntoValue {
    /// The value, or why there is none.
    ///
    /// # Errors
    /// Text for whoever evaluated the expression.
    fn into_value(self) -> Result<Value, String>;
}

/// What a function of the program may take from an expression.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an argument of an expression's call",
    label = "is not `coro::console::FromValue`",
    note = "arguments are numbers, `bool`, `String`, `Vec`, `Option` and `Duration` of such, and `coro::console::Value`; none is borrowed"
)]
pub trait FromValue: Sized {
    /// What is expected, in one word for the list of functions.
    const EXPECTED: &'static str;

    /// The argument, or `None` if `value` is none of these.
    fn from_value(value: Value) -> Option<Self>;
}

impl IntoValue for Value {
    fn into_value(self) -> Result<Value, String> {
        Ok(self)
    }
}

impl FromValue for Value {
    const EXPECTED: &'static str = "any";

    fn from_value(value: Value) -> Option<Value> {
        Some(value)
    }
}

impl IntoValue for () {
    fn into_value(self) -> Result<Value, String> {
        Ok(Value::Nothing)
    }
}

impl IntoValue for bool {
    fn into_value(self) -> Result<Value, String> {
        Ok(Value::Bool(self))
    }
}

impl FromValue for bool {
    const EXPECTED: &'static str = "bool";

    fn from_value(value: Value) -> Option<bool> {
        match value {
            Value::Bool(b) => Some(b),
            _ => None,
        }
    }
}

macro_rules! integers {
    ($($type:ty),*) => {$(
        impl IntoValue for $type {
            fn into_value(self) -> Result<Value, String> {
                i64::try_from(self).map(Value::Int).map_err(|_| format!("{self} has no room in 64 bits with a sign"))
            }
        }

        impl FromValue for $type {
            const EXPECTED: &'static str = "int";

            fn from_value(value: Value) -> Option<$type> {
                match value {
                    Value::Int(n) => n.try_into().ok(),
                    _ => None,
                }
            }
        }
    )*};
}

integers!(i8, i16, i32, i64, isize, u8, u16, u32, u64, usize);

macro_rules! floats {
    ($($type:ty),*) => {$(
        impl IntoValue for $type {
            fn into_value(self) -> Result<Value, String> {
                Ok(Value::Float(self.into()))
            }
        }

        impl FromValue for $type {
            const EXPECTED: &'static str = "float";

            fn from_value(value: Value) -> Option<$type> {
                match value {
                    Value::Float(x) => Some(x as $type),
                    Value::Int(n) => Some(n as $type),
                    _ => None,
                }
            }
        }
    )*};
}

floats!(f32, f64);

macro_rules! texts {
    ($($type:ty),*) => {$(
        impl IntoValue for $type {
            fn into_value(self) -> Result<Value, String> {
                Ok(Value::Text(self.to_string()))
            }
        }
    )*};
}

texts!(&str, String, char, Cow<'_, str>, Arc<str>, Box<str>);

impl FromValue for String {
    const EXPECTED: &'static str = "text";

    fn from_value(value: Value) -> Option<String> {
        match value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// In seconds.
impl IntoValue for Duration {
    fn into_value(self) -> Result<Value, String> {
        Ok(Value::Float(self.as_secs_f64()))
    }
}

/// From seconds.
impl FromValue for Duration {
    const EXPECTED: &'static str = "seconds";

    fn from_value(value: Value) -> Option<Duration> {
        Duration::try_from_secs_f64(f64::from_value(value)?).ok()
    }
}

/// `()` for `None`.
impl<T: IntoValue> IntoValue for Option<T> {
    fn into_value(self) -> Result<Value, String> {
        self.map_or(Ok(Value::Nothing), T::into_value)
    }
}

impl<T: FromValue> FromValue for Option<T> {
    const EXPECTED: &'static str = T::EXPECTED;

    fn from_value(value: Value) -> Option<Option<T>> {
        match value {
            Value::Nothing => Some(None),
            other => T::from_value(other).map(Some),
        }
    }
}

impl<T: IntoValue, E: Display> IntoValue for Result<T, E> {
    fn into_value(self) -> Result<Value, String> {
        self.map_err(|error| error.to_string())?.into_value()
    }
}

macro_rules! lists {
    ($($type:ident),*) => {$(
        impl<T: IntoValue> IntoValue for $type<T> {
            fn into_value(self) -> Result<Value, String> {
                self.into_iter().map(T::into_value).collect::<Result<_, _>>().map(Value::List)
            }
        }

        impl<T: FromValue> FromValue for $type<T> {
            const EXPECTED: &'static str = "list";

            fn from_value(value: Value) -> Option<$type<T>> {
                match value {
                    Value::List(values) => values.into_iter().map(T::from_value).collect(),
                    _ => None,
                }
            }
        }
    )*};
}

lists!(Vec, VecDeque);

impl<K: Into<String>, T: IntoValue> IntoValue for BTreeMap<K, T> {
    fn into_value(self) -> Result<Value, String> {
        self.into_iter().map(|(k, v)| Ok((k.into(), v.into_value()?))).collect::<Result<_, _>>().map(Value::Map)
    }
}

impl<K: Into<String>, T: IntoValue, S> IntoValue for HashMap<K, T, S> {
    fn into_value(self) -> Result<Value, String> {
        let mut entries: Vec<(String, Value)> =
            self.into_iter().map(|(k, v)| Ok((k.into(), v.into_value()?))).collect::<Result<_, String>>()?;
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(Value::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_place_in_a_value_is_told() {
        assert_eq!(u64::MAX.into_value().unwrap_err(), "18446744073709551615 has no room in 64 bits with a sign");
        assert_eq!(Err::<i64, _>("no such cache").into_value().unwrap_err(), "no such cache");
        assert_eq!(vec![Some(1), None].into_value(), Ok(Value::List(vec![Value::Int(1), Value::Nothing])));
    }

    #[test]
    fn arguments_are_taken_only_as_what_they_are() {
        assert_eq!(u8::from_value(Value::Int(256)), None);
        assert_eq!(u8::from_value(Value::Int(255)), Some(255));
        assert_eq!(f64::from_value(Value::Int(2)), Some(2.0));
        assert_eq!(i64::from_value(Value::Float(2.0)), None);
        assert_eq!(Duration::from_value(Value::Float(-1.0)), None);
        assert_eq!(Duration::from_value(Value::Int(2)), Some(Duration::from_secs(2)));
        assert_eq!(Vec::<String>::from_value(Value::List(vec![Value::Int(1)])), None);
        assert_eq!(Option::<bool>::from_value(Value::Nothing), Some(None));
    }
}
