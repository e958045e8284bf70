//! `#[coro::probe]`: the function as it is, with a point around its body.
//!
//! The body becomes a closure that is called at once, so that whatever leaves it (`return`, `?`, a panic) comes by. Nothing is
//! decided here that the library can decide: how a value is shown, it finds out by its type.
//!
//! Invariant: what the function does and what it is called with stays as it was written.

use std::collections::HashSet;

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens as _, format_ident, quote};
use syn::ext::IdentExt as _;
use syn::meta::ParseNestedMeta;
use syn::parse::Parser as _;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned as _;
use syn::{
    Error, FnArg, Ident, ItemFn, LitBool, LitStr, Pat, Path, Result, ReturnType, Token, Type, parenthesized,
    parse_quote,
};

use crate::item::{has_impl, without_raw};
use crate::wrap::Parts;

/// What stands in the parentheses.
#[derive(Default)]
struct Options {
    name: Option<LitStr>,
    /// Arguments that are not looked at.
    skip: Vec<Ident>,
    /// Arguments that are there, but not shown.
    redact: Vec<Ident>,
    /// Whether the result is shown.
    result: Option<LitBool>,
    /// Whether calls can be wrapped.
    wrap: bool,
    library: Option<Path>,
}

impl Options {
    fn parse(tokens: TokenStream) -> Result<Options> {
        let mut options = Options::default();
        syn::meta::parser(|meta| options.take(&meta)).parse2(tokens)?;
        Ok(options)
    }

    fn take(&mut self, meta: &ParseNestedMeta<'_>) -> Result<()> {
        let option = meta.path.get_ident().map(ToString::to_string).unwrap_or_default();
        match option.as_str() {
            "name" => self.name = Some(meta.value()?.parse()?),
            "result" => self.result = Some(meta.value()?.parse()?),
            "crate" => self.library = Some(meta.value()?.call(Path::parse_mod_style)?),
            "wrap" => self.wrap = true,
            "skip" => self.skip.extend(names(meta)?),
            "redact" => self.redact.extend(names(meta)?),
            _ => {
                return Err(meta.error(
                    "no option of #[coro::probe]; there are name = \"…\", skip(argument), redact(argument), result = false, \
                     wrap and crate = path",
                ));
            }
        }
        Ok(())
    }
}

/// `(a, b)`.
fn names(meta: &ParseNestedMeta<'_>) -> Result<impl Iterator<Item = Ident>> {
    let inside;
    parenthesized!(inside in meta.input);
    // `self` is a word of the language, which `Ident` alone does not take.
    Ok(Punctuated::<Ident, Token![,]>::parse_terminated_with(&inside, Ident::parse_any)?.into_iter())
}

/// The function with its point, or as it is and what is wrong.
pub(crate) fn probe(options: TokenStream, item: TokenStream) -> TokenStream {
    expand(options, item.clone()).unwrap_or_else(|error| {
        let error = error.to_compile_error();
        quote!(#item #error)
    })
}

fn expand(options: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let options = Options::parse(options)?;
    let function: ItemFn = syn::parse2(item).map_err(|error| {
        Error::new(
            error.span(),
            "only functions with a body can be probed: of a trait's, put it on those that implement it",
        )
    })?;
    let ItemFn { attrs, vis, mut sig, block } = function;
    if let Some(word) = sig.asyncness {
        let text = "an async function returns at once, with a future: put the probe on what it calls, or on a function that runs it";
        return Err(Error::new(word.span, text));
    }
    if let Some(word) = sig.constness {
        return Err(Error::new(word.span, "what runs in the compiler cannot be watched: leave `const` away"));
    }
    if let Some(attribute) = attrs.iter().find(|attribute| attribute.path().is_ident("track_caller")) {
        let text = "a function with #[track_caller] would not see its caller any more: put the probe on what it calls";
        return Err(Error::new(attribute.span(), text));
    }
    let library: Path = options.library.unwrap_or_else(|| parse_quote!(::coro));
    let (private, probe) = (quote!(#library::__private), quote!(#library::probe));

    let mut unknown: HashSet<String> = options.skip.iter().chain(&options.redact).map(without_raw).collect();
    let (mut shown, mut called) = (Vec::new(), Vec::new());
    for input in &sig.inputs {
        let ident = match input {
            FnArg::Receiver(receiver) => Ident::new("self", receiver.self_token.span),
            FnArg::Typed(typed) => match &*typed.pat {
                Pat::Ident(pattern) => pattern.ident.clone(),
                // What is taken apart has no name to be shown by.
                _ => continue,
            },
        };
        let name = without_raw(&ident);
        unknown.remove(&name);
        if options.skip.contains(&ident) {
            continue;
        }
        called.push(name.trim_start_matches('_').to_owned());
        shown.push(match options.redact.contains(&ident) {
            true => quote!(#probe::Shown::Redacted),
            false => quote!((&&&#probe::Show(&#ident)).shown()),
        });
    }
    let stray = options.skip.iter().chain(&options.redact).find(|ident| unknown.contains(&without_raw(ident)));
    if let Some(ident) = stray {
        return Err(Error::new(ident.span(), format!("the function has no argument called {ident}")));
    }

    let (point, call) = (format_ident!("__CORO_POINT"), format_ident!("__coro_call"));
    let name = match options.name {
        Some(name) => quote!(#probe::PointName::Fixed(#name)),
        None => quote!(#probe::PointName::Within(item)),
    };
    let last = last_line(block.brace_token.span.close());
    let result = match options.result {
        Some(LitBool { value: false, .. }) => quote!(#probe::Shown::Redacted),
        _ => quote!((&&&#probe::Show(&result)).shown()),
    };
    let kind = match &sig.output {
        ReturnType::Type(_, kind) if has_impl(kind.to_token_stream()) => quote!(),
        // Else the closure of a function that never returns would have to be told what it returns.
        output => quote!(#output),
    };
    // What somebody at a breakpoint would have it return; not for a type that has no name here.
    let made = match &sig.output {
        ReturnType::Type(_, kind) if has_impl(kind.to_token_stream()) || matches!(**kind, Type::Never(_)) => None,
        ReturnType::Type(_, kind) => Some(quote!(#kind)),
        ReturnType::Default => Some(quote!(())),
    };
    let made = made.map(|kind| {
        quote!({
            #[allow(unused_imports, reason = "which of them it is depends on the type")]
            use #probe::{ByText as _, CannotFail as _, FailsAsIo as _, FailsAsText as _, NotByText as _};
            match answer.text() {
                ::core::result::Result::Ok(text) => (&&#probe::Made::<#kind>::new()).returning(text),
                ::core::result::Result::Err(text) => (&&&#probe::Made::<#kind>::new()).failing(text),
            }
        })
    });
    let (instead, again) = match &made {
        None => {
            let refused = quote!(answer.refused("its type has no name"));
            (quote!(#refused;), quote!(#refused))
        }
        Some(made) => (
            quote! {
                match #made {
                    ::core::result::Result::Ok(result) => {
                        let _ = #call.returned(#result, (&&#probe::Show(&result)).fails());
                        return result;
                    }
                    ::core::result::Result::Err(why) => answer.refused(&why),
                }
            },
            quote! {
                match #made {
                    ::core::result::Result::Ok(made) => result = made,
                    ::core::result::Result::Err(why) => answer.refused(&why),
                }
            },
        ),
    };
    let body = match sig.unsafety {
        Some(_) => quote!({ #[allow(unused_unsafe, reason = "the body of an unsafe function")] unsafe #block }),
        None => quote!(#block),
    };
    let (run, wrappable) = match options.wrap {
        true => (Parts::of(&mut sig)?.call(&call, &body)?, quote!(.wrappable())),
        false => (quote!((move || #kind #body)()), quote!()),
    };
    Ok(quote! {
        #(#attrs)*
        #vis #sig {
            static #point: #probe::Point = {
                #[allow(dead_code, reason = "it has a name of its own")]
                fn item() -> &'static str {
                    ::core::any::type_name_of_val(&item)
                }
                #probe::Point::new(
                    #name,
                    #probe::PointKind::Function,
                    ::core::file!(),
                    ::core::line!(),
                    #last,
                    &[#(#called),*],
                )
                #wrappable
            };
            const _: () = {
                #[#private::linkme::distributed_slice(#probe::CORO_POINTS_0_1)]
                #[linkme(crate = #private::linkme)]
                static ENTRY: &'static #probe::Point = &#point;
            };
            #[allow(clippy::needless_borrow, reason = "it is written as for values whose type is not known")]
            let mut #call = if #point.is_watched() {
                #[allow(unused_imports, reason = "which of them it is depends on the types")]
                use #probe::{ShowDebug as _, ShowOpaque as _, ShowPlain as _};
                #probe::Call::begin(&#point, &[#(#shown),*])
            } else {
                #probe::Call::off()
            };
            #[allow(clippy::needless_borrow, clippy::redundant_closure_call, clippy::let_unit_value, clippy::type_complexity, unreachable_code, reason = "it is made so")]
            {
                #[allow(unused_imports, reason = "which of them it is depends on the types")]
                use #probe::{Fails as _, NeverFails as _, ShowDebug as _, ShowOpaque as _, ShowPlain as _};
                if let ::core::option::Option::Some(answer) = #call.answer() {
                    #instead
                }
                #[allow(unused_mut, reason = "it may have another in its place")]
                let mut result = #run;
                if #call.is_on() {
                    if let ::core::option::Option::Some(answer) =
                        #call.returned(#result, (&&#probe::Show(&result)).fails())
                    {
                        #again
                    }
                }
                result
            }
        }
    })
}

/// The line of a place, as far as the compiler says.
fn last_line(span: Span) -> TokenStream {
    let line = if proc_macro::is_available() { span.unwrap().end().line() } else { 0 };
    let line = u32::try_from(line).unwrap_or(0);
    // Without one, as in the tests of this crate, the point has one line, its first.
    if line == 0 { quote!(::core::line!()) } else { quote!(#line) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(options: &str, item: &str) -> String {
        let (options, item) = (options.parse().expect("tokens"), item.parse().expect("tokens"));
        expand(options, item).expect_err("refused").to_string()
    }

    #[test]
    fn what_cannot_be_probed_is_told_with_what_to_do() {
        for (options, item, told) in [
            ("", "struct S;", "only functions with a body"),
            ("", "fn f();", "put it on those that implement it"),
            ("", "async fn f() {}", "put the probe on what it calls"),
            ("", "const fn f() {}", "leave `const` away"),
            ("", "#[track_caller] fn f() {}", "put the probe on what it calls"),
            ("skip(b)", "fn f(a: u8) {}", "no argument called b"),
            ("colour", "fn f() {}", "there are name"),
        ] {
            let text = wrong(options, item);
            assert!(text.contains(told), "{item}: {text}");
        }
    }

    #[test]
    fn arguments_are_shown_skipped_and_redacted() {
        let out = |options: &str| {
            let item = "fn f(&self, a: u8, (b, c): P, _d: &str) -> u8 { a }".parse().expect("tokens");
            expand(options.parse().expect("tokens"), item).expect("taken").to_string().replace(' ', "")
        };
        let all = out("");
        assert!(
            all.contains("&[\"self\",\"a\",\"d\"]") && all.contains("Show(&self)") && all.contains("Show(&_d)"),
            "{all}"
        );
        let some = out("skip(self), redact(a), result = false");
        assert!(some.contains("&[\"a\",\"d\"]") && some.contains("Shown::Redacted,(&&&"), "{some}");
        assert!(some.contains("returned(::coro::probe::Shown::Redacted,"), "{some}");
    }
}
