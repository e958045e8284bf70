//! How the code of the attribute looks at values of whatever type: what is plain as it is, what is `Debug` by that, anything
//! else by the name of its type. Which of the three it is, the compiler decides where it looks for the method: it tries the type
//! with the most references first.

#![forbid(unsafe_code)]

use std::any::type_name;
use std::fmt;

use crate::observe::Shown;

/// Something to be shown.
#[allow(missing_debug_implementations, reason = "it has one that is another's")]
pub struct Show<'a, T: ?Sized>(pub &'a T);

impl<T: fmt::Debug + ?Sized> fmt::Debug for Show<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What is shown as it is.
pub trait Plain {
    /// So.
    fn plain(&self) -> Shown<'_>;
}

macro_rules! plain {
    ($($type:ty: $self:ident => $shown:expr;)*) => {$(
        impl Plain for $type {
            #[inline]
            fn plain(&self) -> Shown<'_> {
                let $self = self;
                $shown
            }
        }
    )*};
}

plain! {
    (): _it => Shown::Unit;
    bool: it => Shown::Bool(*it);
    i8: it => Shown::Int((*it).into());
    i16: it => Shown::Int((*it).into());
    i32: it => Shown::Int((*it).into());
    i64: it => Shown::Int(*it);
    isize: it => Shown::Int(*it as i64);
    u8: it => Shown::Int((*it).into());
    u16: it => Shown::Int((*it).into());
    u32: it => Shown::Int((*it).into());
    u64: it => i64::try_from(*it).map_or(Shown::Unsigned(*it), Shown::Int);
    usize: it => i64::try_from(*it).map_or(Shown::Unsigned(*it as u64), Shown::Int);
    i128: it => i64::try_from(*it).map(Shown::Int).or_else(|_| u64::try_from(*it).map(Shown::Unsigned)).unwrap_or(Shown::Debug(it));
    u128: it => i64::try_from(*it).map(Shown::Int).or_else(|_| u64::try_from(*it).map(Shown::Unsigned)).unwrap_or(Shown::Debug(it));
    f32: it => Shown::Float((*it).into());
    f64: it => Shown::Float(*it);
    str: it => Shown::Text(it);
    String: it => Shown::Text(it);
}

impl<T: Plain + ?Sized> Plain for &T {
    fn plain(&self) -> Shown<'_> {
        (**self).plain()
    }
}

impl<T: Plain + ?Sized> Plain for &mut T {
    fn plain(&self) -> Shown<'_> {
        (**self).plain()
    }
}

/// First: as it is.
pub trait ShowPlain {
    /// So.
    fn shown(&self) -> Shown<'_>;
}

impl<T: Plain + ?Sized> ShowPlain for &&Show<'_, T> {
    fn shown(&self) -> Shown<'_> {
        self.0.plain()
    }
}

/// Second: as it shows itself.
pub trait ShowDebug {
    /// So.
    fn shown(&self) -> Shown<'_>;
}

impl<T: fmt::Debug + ?Sized> ShowDebug for &Show<'_, T> {
    fn shown(&self) -> Shown<'_> {
        Shown::Debug(*self)
    }
}

/// Last: by its type.
pub trait ShowOpaque {
    /// So.
    fn shown(&self) -> Shown<'_>;
}

impl<T: ?Sized> ShowOpaque for Show<'_, T> {
    fn shown(&self) -> Shown<'_> {
        Shown::Opaque(type_name::<T>().trim_start_matches('&').trim_start_matches("mut "))
    }
}

/// First: a result may be an error.
pub trait Fails {
    /// Whether it is.
    fn fails(&self) -> bool;
}

impl<T, E> Fails for &Show<'_, Result<T, E>> {
    fn fails(&self) -> bool {
        self.0.is_err()
    }
}

/// Last: anything else is none.
pub trait NeverFails {
    /// No.
    fn fails(&self) -> bool;
}

impl<T: ?Sized> NeverFails for Show<'_, T> {
    fn fails(&self) -> bool {
        false
    }
}

#[cfg(test)]
#[allow(clippy::needless_borrow, reason = "it is written as for values whose type is not known")]
mod tests {
    use super::*;

    struct Silent;

    #[derive(Debug)]
    #[allow(dead_code, reason = "it is shown")]
    struct Talks(u8);

    #[test]
    fn each_value_is_shown_as_well_as_it_can_be() {
        let text = |shown: Shown<'_>| shown.text();
        let word = String::from("word");
        assert_eq!(text((&&&Show(&word)).shown()), "\"word\"");
        assert_eq!(text((&&&Show(&&7u8)).shown()), "7");
        assert_eq!(text((&&&Show(&u64::MAX)).shown()), "18446744073709551615");
        assert_eq!(text((&&&Show(&Talks(1))).shown()), "Talks(1)");
        assert_eq!(text((&&&Show(&[1u8, 2][..])).shown()), "[1, 2]");
        assert!(text((&&&Show(&Silent)).shown()).ends_with("::Silent>"));
        fn of_any<T>(value: &T) -> String {
            (&&&Show(value)).shown().text()
        }
        assert_eq!(of_any(&1u8), "<u8>");
        let fails = |r: &Result<u8, Silent>| (&&Show(r)).fails();
        assert!(fails(&Err(Silent)) && !fails(&Ok(1)) && !(&&Show(&1)).fails());
    }
}
