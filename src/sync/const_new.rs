//! `const_unless_modelled!`, which the shipped and the modelled primitives make their constructors with.

#![forbid(unsafe_code)]

/// A constructor that is `const` but in a model, whose atomics need one at run time.
macro_rules! const_unless_modelled {
    ($(#[$doc:meta])* $v:vis fn $name:ident($($arg:ident: $t:ty),*) -> $r:ty $body:block) => {
        $(#[$doc])*
        #[cfg(not(loom))]
        $v const fn $name($($arg: $t),*) -> $r $body

        $(#[$doc])*
        #[cfg(loom)]
        $v fn $name($($arg: $t),*) -> $r $body
    };
}

pub(super) use const_unless_modelled;
