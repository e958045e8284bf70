//! The attributes `#[coro::export]` and `#[coro::probe]`; their guides stand where `coro` exports them.
//!
//! `probe` is the second one, with `wrap` for what can be put around it. Of the first, `options` reads what stands in the attribute's parentheses, `item` what it stands on, `expand` writes the entry of the
//! library's table. Nothing is decided here that the library can decide: which names and types there may be is checked by its
//! functions, at the places that the attribute points them to.
//!
//! Invariant: the item itself comes out as it went in.

mod expand;
mod item;
mod options;
mod probe;
mod wrap;

use proc_macro::TokenStream;

/// Makes a function or a static known to the expressions of the console.
#[proc_macro_attribute]
pub fn export(options: TokenStream, item: TokenStream) -> TokenStream {
    expand::export(options.into(), item.into()).into()
}

/// Makes a function a point that can be watched.
#[proc_macro_attribute]
pub fn probe(options: TokenStream, item: TokenStream) -> TokenStream {
    probe::probe(options.into(), item.into()).into()
}
