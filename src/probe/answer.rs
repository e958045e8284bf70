//! How a function's result is made of what somebody typed. Which way there is for a type, the compiler decides where the code of the
//! attribute asks, as in `expose`.

#![forbid(unsafe_code)]

use std::any::type_name;
use std::io;
use std::marker::PhantomData;

/// Stands for a result of that type.
#[allow(missing_debug_implementations, reason = "it is never seen")]
pub struct Made<T>(PhantomData<fn() -> T>);

impl<T> Made<T> {
    /// Nothing is made yet.
    #[allow(clippy::new_without_default, reason = "it is the attribute's")]
    pub const fn new() -> Made<T> {
        Made(PhantomData)
    }
}

/// What can be made of text.
pub trait OfText: Sized {
    /// It, or why not.
    ///
    /// # Errors
    /// What is wrong with the text.
    fn of_text(text: &str) -> Result<Self, String>;
}

macro_rules! parsed {
    ($($type:ty)*) => {$(
        impl OfText for $type {
            fn of_text(text: &str) -> Result<$type, String> {
                text.parse().map_err(|e| format!("{text:?} is no {}: {e}", stringify!($type)))
            }
        }
    )*};
}

parsed!(bool char i8 i16 i32 i64 i128 isize u8 u16 u32 u64 u128 usize f32 f64);

impl OfText for String {
    fn of_text(text: &str) -> Result<String, String> {
        let inside = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
        Ok(inside.unwrap_or(text).to_owned())
    }
}

impl OfText for () {
    fn of_text(text: &str) -> Result<(), String> {
        if text == "()" { Ok(()) } else { Err(format!("{text:?} is not ()")) }
    }
}

fn within<'a>(text: &'a str, name: &str) -> &'a str {
    text.strip_prefix(name).and_then(|t| t.strip_prefix('(')).and_then(|t| t.strip_suffix(')')).unwrap_or(text)
}

impl<T: OfText> OfText for Option<T> {
    fn of_text(text: &str) -> Result<Option<T>, String> {
        if text == "None" { Ok(None) } else { T::of_text(within(text, "Some")).map(Some) }
    }
}

impl<T: OfText, E> OfText for Result<T, E> {
    fn of_text(text: &str) -> Result<Result<T, E>, String> {
        T::of_text(within(text, "Ok")).map(Ok)
    }
}

/// First: of text.
pub trait ByText<T> {
    /// It, or why not.
    ///
    /// # Errors
    /// What is wrong with the text.
    fn returning(&self, text: &str) -> Result<T, String>;
}

impl<T: OfText> ByText<T> for &Made<T> {
    fn returning(&self, text: &str) -> Result<T, String> {
        T::of_text(text)
    }
}

/// Last: not at all.
pub trait NotByText<T> {
    /// Why not.
    ///
    /// # Errors
    /// Always.
    fn returning(&self, text: &str) -> Result<T, String>;
}

impl<T> NotByText<T> for Made<T> {
    fn returning(&self, _: &str) -> Result<T, String> {
        Err(format!("a {} cannot be made of text", type_name::<T>()))
    }
}

/// First: an error that is made of the system's.
pub trait FailsAsIo<T> {
    /// It.
    ///
    /// # Errors
    /// Never.
    fn failing(&self, text: &str) -> Result<T, String>;
}

impl<T, E: From<io::Error>> FailsAsIo<Result<T, E>> for &&Made<Result<T, E>> {
    fn failing(&self, text: &str) -> Result<Result<T, E>, String> {
        Ok(Err(io::Error::other(text.to_owned()).into()))
    }
}

/// Second: one that is made of text.
pub trait FailsAsText<T> {
    /// It.
    ///
    /// # Errors
    /// Never.
    fn failing(&self, text: &str) -> Result<T, String>;
}

impl<T, E: From<String>> FailsAsText<Result<T, E>> for &Made<Result<T, E>> {
    fn failing(&self, text: &str) -> Result<Result<T, E>, String> {
        Ok(Err(text.to_owned().into()))
    }
}

/// Last: not at all.
pub trait CannotFail<T> {
    /// Why not.
    ///
    /// # Errors
    /// Always.
    fn failing(&self, text: &str) -> Result<T, String>;
}

impl<T> CannotFail<T> for Made<T> {
    fn failing(&self, _: &str) -> Result<T, String> {
        Err(format!("a {} has no error that can be made of text", type_name::<T>()))
    }
}

#[cfg(test)]
#[allow(clippy::needless_borrow, reason = "it is written as for values whose type is not known")]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Own;

    #[test]
    fn results_are_made_of_text_where_they_can_be() {
        assert_eq!((&&Made::<u8>::new()).returning("7"), Ok(7));
        assert!((&&Made::<u8>::new()).returning("x").unwrap_err().starts_with("\"x\" is no u8: "));
        assert_eq!((&&Made::<Option<String>>::new()).returning("Some(\"a b\")"), Ok(Some("a b".to_owned())));
        assert_eq!((&&Made::<Option<u8>>::new()).returning("None"), Ok(None));
        assert_eq!((&&Made::<Result<(), Own>>::new()).returning("Ok(())").unwrap().unwrap(), ());
        assert!((&&Made::<Own>::new()).returning("1").unwrap_err().ends_with("Own cannot be made of text"));
        let io = (&&&Made::<Result<Own, io::Error>>::new()).failing("closed").unwrap();
        assert_eq!(io.unwrap_err().to_string(), "closed");
        assert_eq!((&&&Made::<Result<u8, String>>::new()).failing("closed"), Ok(Err("closed".to_owned())));
        assert!((&&&Made::<Result<u8, Own>>::new()).failing("x").unwrap_err().ends_with("made of text"));
        assert!((&&&Made::<u8>::new()).failing("x").is_err());
    }
}
