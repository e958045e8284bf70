//! `#[coro::probe]`: the function as it is, with a point around its body.
//!
//! The body becomes a closure that is called at once, so that whatever leaves it (`return`, `?`, a panic) comes by; where the result's
//! type cannot be written for a closure (`impl …`, `!`) the body stays, and what is dropped behind it tells the end. Nothing is
//! decided here that the library can decide: how a value is shown, it finds out by its type.
//!
//! Invariants: what the function does and what it is called with stays as it was written, the order in which arguments are dropped
//! included. No lint is switched off for what was written.

use std::collections::HashSet;

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens as _, format_ident, quote};
use syn::ext::IdentExt as _;
use syn::meta::ParseNestedMeta;
use syn::parse::Parser as _;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned as _;
use syn::{
    AttrStyle, Attribute, Error, FnArg, Ident, ItemFn, LitBool, LitStr, Pat, PatType, Path, Receiver, Result,
    ReturnType, Signature, Token, Type, parenthesized, parse_quote,
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
            "name" => once(&mut self.name, meta)?,
            "result" => once(&mut self.result, meta)?,
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

/// The value of an option that may be there once.
fn once<T: syn::parse::Parse>(option: &mut Option<T>, meta: &ParseNestedMeta<'_>) -> Result<()> {
    match option.replace(meta.value()?.parse()?) {
        None => Ok(()),
        Some(_) => Err(meta.error("it is there twice: leave one away")),
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
    let ItemFn { mut attrs, vis, mut sig, block } = function;
    // Those at the head of the body mean the same before the function.
    attrs.iter_mut().for_each(|attribute| attribute.style = AttrStyle::Outer);
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
    let (mut shown, mut called, mut unused) = (Vec::new(), Vec::new(), None);
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
        match (options.skip.contains(&ident), options.redact.contains(&ident)) {
            (true, true) => {
                return Err(Error::new(ident.span(), format!("{ident} is skipped and redacted: one of them")));
            }
            (true, false) => continue,
            _ => {}
        }
        if name.starts_with('_') {
            // It is named so for not being used, and is here.
            unused = Some(quote!(#[allow(clippy::used_underscore_binding)]));
        }
        let there: Vec<&Attribute> = conditions(input).collect();
        let shorter = name.trim_start_matches('_');
        called.push(quote!(#(#there)* #shorter));
        shown.push(match options.redact.contains(&ident) {
            true => quote!(#(#there)* #probe::Shown::Redacted),
            false => quote!(#(#there)* (&&&#probe::Show(&#ident)).shown()),
        });
    }
    let stray = options.skip.iter().chain(&options.redact).find(|ident| unknown.contains(&without_raw(ident)));
    if let Some(ident) = stray {
        return Err(Error::new(ident.span(), format!("the function has no argument called {ident}")));
    }

    let (point, call) = (format_ident!("__CORO_POINT"), format_ident!("__coro_call"));
    let name = match options.name {
        Some(name) => quote!(#probe::PointName::Fixed(#name)),
        None => quote!({
            fn item() -> &'static str {
                ::core::any::type_name_of_val(&item)
            }
            #probe::PointName::Within(item)
        }),
    };
    let last = last_line(block.brace_token.span.close());
    let result = match options.result {
        Some(LitBool { value: false, .. }) => quote!(#probe::Shown::Redacted),
        _ => quote!((&&&#probe::Show(&result)).shown()),
    };
    let kind = match &sig.output {
        // A closure cannot be told that.
        ReturnType::Type(_, kind) if has_impl(kind.to_token_stream()) || matches!(**kind, Type::Never(_)) => None,
        ReturnType::Type(_, kind) => Some(quote!(#kind)),
        // Else the closure of a function that never returns would have to be told what it returns.
        ReturnType::Default => Some(quote!(())),
    };
    let wrappable = options.wrap.then(|| quote!(.wrappable()));
    let rest = match &kind {
        Some(kind) => {
            // What somebody at a breakpoint would have it return.
            let made = quote!({
                use #probe::{ByText as _, CannotFail as _, FailsAsIo as _, FailsAsText as _, NotByText as _};
                match answer.text() {
                    ::core::result::Result::Ok(text) => (&&#probe::Made::<#kind>::new()).returning(text),
                    ::core::result::Result::Err(text) => (&&&#probe::Made::<#kind>::new()).failing(text),
                }
            });
            let run = match options.wrap {
                true => Parts::of(&mut sig)?.call(&probe, &call, &block.to_token_stream())?,
                false => {
                    let arguments = taken(&mut sig);
                    let statements = &block.stmts;
                    quote!(#probe::run_once(move || -> #kind { #arguments #(#statements)* }))
                }
            };
            let traits = quote! {
                use #probe::{Fails as _, NeverFails as _, ShowDebug as _, ShowOpaque as _, ShowPlain as _};
            };
            quote! {
                if let ::core::option::Option::Some(answer) = #call.answer() {
                    #traits
                    match #made {
                        ::core::result::Result::Ok(result) => {
                            let _ = #call.returned(#result, (&&#probe::Show(&result)).fails());
                            return result;
                        }
                        ::core::result::Result::Err(why) => answer.refused(&why),
                    }
                }
                let result = #run;
                if #call.is_on() {
                    if #call.has_returned_lightly() {
                        #call.forget();
                        return result;
                    }
                    #traits
                    if let ::core::option::Option::Some(answer) = #call.returned(#result, (&&#probe::Show(&result)).fails()) {
                        match #made {
                            ::core::result::Result::Ok(made) => return made,
                            ::core::result::Result::Err(why) => answer.refused(&why),
                        }
                    }
                }
                result
            }
        }
        None if options.wrap => {
            return Err(Parts::of(&mut sig)
                .err()
                .unwrap_or_else(|| Error::new(sig.output.span(), "a function of that type cannot be wrapped")));
        }
        None => {
            let statements = &block.stmts;
            let opaque = match &sig.output {
                ReturnType::Type(_, kind) => written(&kind.to_token_stream().to_string()),
                ReturnType::Default => String::new(),
            };
            quote! {
                if let ::core::option::Option::Some(answer) = #call.answer() {
                    answer.refused("its type has no name");
                }
                let __coro_behind = #call.told_when_dropped(#opaque);
                #(#statements)*
            }
        }
    };
    Ok(quote! {
        #(#attrs)*
        #vis #sig {
            static #point: #probe::Point = {
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
            #unused
            let mut #call = if #point.is_watched() {
                match #probe::Call::begin_lightly(&#point) {
                    ::core::option::Option::Some(call) => call,
                    ::core::option::Option::None => {
                        use #probe::{ShowDebug as _, ShowOpaque as _, ShowPlain as _};
                        #probe::Call::begin_noted(&#point, &[#(#shown),*])
                    }
                }
            } else {
                #probe::Call::off()
            };
            #rest
        }
    })
}

/// A type as people write it: tokens come with spaces between them, of which there are more or fewer from one compiler to the next.
fn written(tokens: &str) -> String {
    let word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let mut out = String::new();
    let mut words = tokens.split_whitespace().peekable();
    while let Some(part) = words.next() {
        out.push_str(part);
        let Some(next) = words.peek() else { break };
        let (last, first) = (out.chars().next_back(), next.chars().next());
        let apart = |text: &str| matches!(text, "=" | "+" | "->");
        if last == Some(',') || apart(part) || apart(next) || word(last) && (word(first) || first == Some('\'')) {
            out.push(' ');
        }
    }
    out.replace(" ,", ",")
}

/// The `cfg`s of an argument.
fn conditions(input: &FnArg) -> impl Iterator<Item = &Attribute> {
    let (FnArg::Receiver(Receiver { attrs, .. }) | FnArg::Typed(PatType { attrs, .. })) = input;
    attrs.iter().filter(|attribute| attribute.path().is_ident("cfg"))
}

/// Takes the arguments into the closure, whole and in order, so that they are dropped as they would have been; what is `mut`, is so
/// there.
fn taken(sig: &mut Signature) -> TokenStream {
    let mut out = TokenStream::new();
    for (n, input) in sig.inputs.iter_mut().enumerate() {
        let there: Vec<TokenStream> = conditions(input).map(|one| one.to_token_stream()).collect();
        match input {
            FnArg::Receiver(receiver) if receiver.reference.is_none() => {
                // It has no other name; this takes it whole.
                let this = Ident::new("self", receiver.self_token.span);
                out.extend(quote!(let _ = &#this;));
            }
            FnArg::Receiver(_) => {}
            FnArg::Typed(typed) => {
                if let Pat::Wild(_) = &*typed.pat {
                    let name = format_ident!("__coro_argument_{n}", span = Span::mixed_site());
                    *typed.pat = parse_quote!(#name);
                    out.extend(quote!(#(#there)* let _unused = #name;));
                    continue;
                }
                let mut names = Vec::new();
                bindings(&mut typed.pat, &mut names);
                out.extend(names.iter().map(|(mutable, name)| {
                    let unused = name.to_string().starts_with('_').then(
                        || quote!(#[allow(clippy::used_underscore_binding, clippy::no_effect_underscore_binding)]),
                    );
                    quote!(#(#there)* #unused let #mutable #name = #name;)
                }));
            }
        }
    }
    out
}

/// The names in a pattern, which loses their `mut`.
fn bindings(pattern: &mut Pat, out: &mut Vec<(Option<Token![mut]>, Ident)>) {
    match pattern {
        Pat::Ident(one) => {
            // `ref mut` is another thing.
            let mutable = if one.by_ref.is_none() { one.mutability.take() } else { None };
            out.push((mutable, one.ident.clone()));
            if let Some((_, inner)) = &mut one.subpat {
                bindings(inner, out);
            }
        }
        Pat::Tuple(all) => all.elems.iter_mut().for_each(|one| bindings(one, out)),
        Pat::TupleStruct(all) => all.elems.iter_mut().for_each(|one| bindings(one, out)),
        Pat::Slice(all) => all.elems.iter_mut().for_each(|one| bindings(one, out)),
        Pat::Struct(all) => all.fields.iter_mut().for_each(|one| bindings(&mut one.pat, out)),
        Pat::Reference(inner) => bindings(&mut inner.pat, out),
        Pat::Paren(inner) => bindings(&mut inner.pat, out),
        Pat::Type(inner) => bindings(&mut inner.pat, out),
        _ => {}
    }
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
            ("skip(a), redact(a)", "fn f(a: u8) {}", "skipped and redacted"),
            ("name = \"a\", name = \"b\"", "fn f() {}", "there twice"),
            ("colour", "fn f() {}", "there are name"),
        ] {
            let text = wrong(options, item);
            assert!(text.contains(told), "{item}: {text}");
        }
    }

    #[test]
    fn types_are_written_as_people_do() {
        for (tokens, text) in [
            ("impl Fn (& str) -> usize", "impl Fn(&str) -> usize"),
            ("(impl Fn() -> u8 , Box < dyn fmt :: Debug >)", "(impl Fn() -> u8, Box<dyn fmt::Debug>)"),
            ("impl Iterator < Item = & 'a mut String > + 'a", "impl Iterator<Item = &'a mut String> + 'a"),
            ("!", "!"),
        ] {
            assert_eq!(written(tokens), text);
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
