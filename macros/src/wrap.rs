//! What `#[coro::probe(wrap)]` makes of a function: its body becomes a function of its own, which wrappers may be put around.
//!
//! The library finds wrappers by the type of the function, with every lifetime of a call left open (`for<'a>`), so that references may
//! be arguments. What cannot be written so is refused, with what to do; types that do not live for ever are refused by the compiler.
//!
//! Must not know: the options, how wrappers are found.

use proc_macro2::{Group, Ident, Punct, Spacing, Span, TokenStream, TokenTree};
use quote::{ToTokens as _, format_ident, quote};
use syn::spanned::Spanned as _;
use syn::{
    Error, FnArg, GenericParam, Pat, PatType, Receiver, Result, ReturnType, Signature, Type, WherePredicate,
    parse_quote,
};

use crate::item::has_impl;

/// How the function's original is called, and with what.
pub(crate) struct Parts {
    /// What the body is written with, as parameters of a closure.
    patterns: Vec<TokenStream>,
    /// What they are called in the function's own head, after [`Parts::of`].
    names: Vec<Ident>,
    types: Vec<TokenStream>,
    output: TokenStream,
    /// The function's own lifetimes.
    lifetimes: Vec<Ident>,
    /// Which argument a reference in the result borrows from, if that is not written.
    source: Option<usize>,
    has_self: bool,
}

impl Parts {
    /// Takes the function apart; in its head every argument is a name then.
    ///
    /// # Errors
    /// What cannot be wrapped, and why.
    pub(crate) fn of(sig: &mut Signature) -> Result<Parts> {
        check(sig)?;
        let mut parts = Parts {
            patterns: Vec::new(),
            names: Vec::new(),
            types: Vec::new(),
            output: match &sig.output {
                ReturnType::Type(_, kind) => quote!(#kind),
                ReturnType::Default => quote!(()),
            },
            lifetimes: sig.generics.lifetimes().map(|life| life.lifetime.ident.clone()).collect(),
            source: None,
            has_self: false,
        };
        for (n, input) in sig.inputs.iter_mut().enumerate() {
            match input {
                FnArg::Receiver(receiver) => {
                    let this = this(receiver.self_token.span);
                    // That of `mut self`; `&mut self` is a type.
                    let mutable = match receiver.reference {
                        Some(_) => None,
                        None => receiver.mutability.take(),
                    };
                    parts.patterns.push(quote!(#mutable #this));
                    parts.names.push(Ident::new("self", receiver.self_token.span));
                    let kind = &receiver.ty;
                    parts.types.push(quote!(#kind));
                    parts.has_self = true;
                }
                FnArg::Typed(typed) => {
                    let name = match &*typed.pat {
                        Pat::Ident(pattern) => pattern.ident.clone(),
                        _ => format_ident!("__coro_argument_{n}"),
                    };
                    let pattern = std::mem::replace(&mut *typed.pat, parse_quote!(#name));
                    let kind = &typed.ty;
                    parts.patterns.push(quote!(#pattern));
                    parts.types.push(quote!(#kind));
                    parts.names.push(name);
                }
            }
        }
        if lives(&parts.output).0 > 0 {
            let borrowed = |kind: &TokenStream| lives(kind).0 + lives(kind).1 > 0;
            parts.source = match parts.has_self && borrowed(&parts.types[0]) {
                true => Some(0),
                false => parts.types.iter().position(borrowed),
            };
        }
        Ok(parts)
    }

    /// `for<'a> HEAD(FIRST, &'a A) -> &'a B`, whose lifetimes are called so that they hide no others.
    fn kind(&self, head: &TokenStream, first: Option<TokenStream>, tag: &str) -> TokenStream {
        let rename = |tokens: &TokenStream| renamed(tokens.clone(), &self.lifetimes, tag);
        let mut lifetimes: Vec<TokenStream> =
            self.lifetimes.iter().map(|name| lifetime(&format!("{name}{tag}"), name.span()).collect()).collect();
        let mut types: Vec<TokenStream> = self.types.iter().map(rename).collect();
        let mut output = rename(&self.output);
        if let Some(source) = self.source {
            // A lifetime that has a name there is the one; else it gets one.
            let named = self.lifetimes.iter().find(|name| contains(&self.types[source], name));
            let name = match named {
                Some(name) => format!("{name}{tag}"),
                None => {
                    let name = format!("__coro_source{tag}");
                    lifetimes.push(lifetime(&name, Span::mixed_site()).collect());
                    types[source] = filled(types[source].clone(), &name);
                    name
                }
            };
            output = filled(output, &name);
        }
        let first = first.into_iter();
        quote!(for<#(#lifetimes),*> #head(#(#first,)* #(#types),*) -> #output)
    }

    /// The call of the body, through whatever wrappers there are. `call` is the call that is under way. What
    /// is done with wrappers is done aside, so that a call without any needs no registers for it.
    pub(crate) fn call(&self, probe: &TokenStream, call: &Ident, body: &TokenStream) -> Result<TokenStream> {
        let Parts { patterns, names, types, output, .. } = self;
        let body = if self.has_self { without_self(body.clone())? } else { body.clone() };
        let function = quote!(::core::ops::Fn);
        let pointer = self.kind(&quote!(fn), None, "__coro_f");
        let original = self.kind(&function, None, "__coro_o");
        let wrapper = self.kind(&function, Some(quote!(::std::rc::Rc<dyn #original>)), "__coro_w");
        let arguments: Vec<Ident> = (0..names.len()).map(|n| format_ident!("__coro_{n}")).collect();
        let instance = match self.has_self {
            true => quote!({
                let this: &Self = &self;
                ::core::ptr::from_ref::<Self>(this).cast::<()>().addr()
            }),
            false => quote!(0),
        };
        let tokens = quote!({
            let __coro_original: #pointer = |#(#patterns),*| #body;
            match #call.wrappers::<dyn #wrapper + ::core::marker::Send + ::core::marker::Sync>(
                ::core::stringify!(fn(#(#types),*) -> #output),
                #instance,
            ) {
                ::core::option::Option::None => __coro_original(#(#names),*),
                ::core::option::Option::Some(__coro_wrappers) => #probe::aside(move || {
                    let mut __coro_layer: ::std::rc::Rc<dyn #original> = ::std::rc::Rc::new(__coro_original);
                    for __coro_wrapper in __coro_wrappers {
                        let __coro_inner = __coro_layer;
                        __coro_layer = ::std::rc::Rc::new(move |#(#arguments),*| {
                            __coro_wrapper.call()(::std::rc::Rc::clone(&__coro_inner), #(#arguments),*)
                        });
                    }
                    __coro_layer(#(#names),*)
                }),
            }
        });
        Ok(tokens)
    }
}

/// What cannot be wrapped.
fn check(sig: &Signature) -> Result<()> {
    if let Some(word) = &sig.unsafety {
        let text = "an unsafe function cannot be wrapped, for a wrapper would call it from safe code: wrap a safe one that calls it";
        return Err(Error::new(word.span, text));
    }
    let bounded =
        |parameter: &&GenericParam| matches!(parameter, GenericParam::Lifetime(life) if !life.bounds.is_empty());
    let clause = sig.generics.where_clause.iter().flat_map(|clause| &clause.predicates);
    let clause = clause.into_iter().find(|predicate| matches!(predicate, WherePredicate::Lifetime(_)));
    if let Some(span) = sig.generics.params.iter().find(bounded).map(|p| p.span()).or(clause.map(|c| c.span())) {
        let text = "a function whose lifetimes depend on each other cannot be wrapped, for the type of its wrapper could not say so";
        return Err(Error::new(span, text));
    }
    for input in &sig.inputs {
        let (FnArg::Receiver(Receiver { attrs, .. }) | FnArg::Typed(PatType { attrs, .. })) = input;
        if let Some(attribute) = attrs.iter().find(|attribute| attribute.path().is_ident("cfg")) {
            let text = "an argument that is there only sometimes cannot be wrapped: put the condition on the function";
            return Err(Error::new(attribute.span(), text));
        }
    }
    let types = sig.inputs.iter().filter_map(|input| match input {
        FnArg::Typed(typed) => Some(&*typed.ty),
        FnArg::Receiver(_) => None,
    });
    let result = match &sig.output {
        ReturnType::Type(_, kind) => Some(&**kind),
        ReturnType::Default => None,
    };
    for kind in types.chain(result) {
        if has_impl(kind.to_token_stream()) {
            let text = "a function with `impl` in its types cannot be wrapped, for they have no name: name the type, or take `Box<dyn …>`";
            return Err(Error::new(kind.span(), text));
        }
        if matches!(kind, Type::Never(_)) {
            return Err(Error::new(kind.span(), "a function that never returns cannot be wrapped"));
        }
    }
    Ok(())
}

/// What `self` is called in the body.
fn this(span: Span) -> Ident {
    Ident::new("__coro_self", Span::mixed_site().located_at(span))
}

/// The body with another name for `self`. What has a `self` of its own (`impl`, `trait`) is left as it is, and so are paths.
fn without_self(body: TokenStream) -> Result<TokenStream> {
    let mut out = TokenStream::new();
    let mut tokens = body.into_iter().peekable();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Ident(word) if word == "self" => {
                // `self::name` is a path.
                let mut ahead = tokens.clone();
                let path = [ahead.next(), ahead.next()]
                    .iter()
                    .all(|t| matches!(t, Some(TokenTree::Punct(punct)) if punct.as_char() == ':'));
                out.extend([TokenTree::Ident(if path { word } else { this(word.span()) })]);
            }
            TokenTree::Ident(word) if word == "impl" || word == "trait" || word == "use" => {
                let ends = |token: &TokenTree| match token {
                    TokenTree::Group(group) => word != "use" && group.delimiter() == proc_macro2::Delimiter::Brace,
                    TokenTree::Punct(punct) => punct.as_char() == ';',
                    _ => false,
                };
                out.extend([TokenTree::Ident(word.clone())]);
                for token in tokens.by_ref() {
                    let end = ends(&token);
                    out.extend([token]);
                    if end {
                        break;
                    }
                }
            }
            TokenTree::Group(group) => {
                let mut inner = Group::new(group.delimiter(), without_self(group.stream())?);
                inner.set_span(group.span());
                out.extend([TokenTree::Group(inner)]);
            }
            TokenTree::Literal(text) if ["{self}", "{self:"].iter().any(|name| text.to_string().contains(name)) => {
                let what =
                    "in a function that can be wrapped, a format cannot name `self`: write {} and give it `self`";
                return Err(Error::new(text.span(), what));
            }
            other => out.extend([other]),
        }
    }
    Ok(out)
}

/// The two tokens of a lifetime.
fn lifetime(name: &str, span: Span) -> impl Iterator<Item = TokenTree> + use<> {
    [Punct::new('\'', Spacing::Joint).into(), Ident::new(name, span).into()].into_iter()
}

/// What a type says of lifetimes, token by token.
enum Life {
    /// It has a name.
    Named(Ident),
    /// `'_`.
    Open(Ident),
    /// A reference without one.
    Missing(Punct),
    Other(TokenTree),
}

/// Goes through a type and what is in brackets in it.
fn changed(tokens: TokenStream, change: &mut dyn FnMut(Life, &mut TokenStream)) -> TokenStream {
    let is = |token: Option<&TokenTree>, c: char| matches!(token, Some(TokenTree::Punct(p)) if p.as_char() == c);
    let mut out = TokenStream::new();
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        let life = match token {
            TokenTree::Group(group) => {
                let mut inner = Group::new(group.delimiter(), changed(group.stream(), change));
                inner.set_span(group.span());
                Life::Other(TokenTree::Group(inner))
            }
            TokenTree::Punct(punct) if punct.as_char() == '&' && !is(tokens.peek(), '\'') => Life::Missing(punct),
            TokenTree::Punct(punct) if punct.as_char() == '\'' => match tokens.next() {
                Some(TokenTree::Ident(name)) if name == "_" => Life::Open(name),
                Some(TokenTree::Ident(name)) => Life::Named(name),
                // There is no such thing in a type.
                _ => Life::Other(punct.into()),
            },
            other => Life::Other(other),
        };
        change(life, &mut out);
    }
    out
}

fn as_it_is(life: Life, out: &mut TokenStream) {
    match life {
        Life::Named(name) | Life::Open(name) => out.extend(lifetime(&name.to_string(), name.span())),
        Life::Missing(punct) => out.extend([TokenTree::Punct(punct)]),
        Life::Other(token) => out.extend([token]),
    }
}

/// How many lifetimes are not named in a type, and how many are.
fn lives(tokens: &TokenStream) -> (usize, usize) {
    let mut found = (0, 0);
    changed(tokens.clone(), &mut |life, _| match life {
        Life::Open(_) | Life::Missing(_) => found.0 += 1,
        Life::Named(name) if name != "static" => found.1 += 1,
        _ => {}
    });
    found
}

fn contains(tokens: &TokenStream, wanted: &Ident) -> bool {
    let mut found = false;
    changed(tokens.clone(), &mut |life, _| found |= matches!(life, Life::Named(name) if name == *wanted));
    found
}

/// With the function's own lifetimes called differently.
fn renamed(tokens: TokenStream, own: &[Ident], tag: &str) -> TokenStream {
    changed(tokens, &mut |life, out| match life {
        Life::Named(name) if own.contains(&name) => out.extend(lifetime(&format!("{name}{tag}"), name.span())),
        life => as_it_is(life, out),
    })
}

/// With a name for what has none.
fn filled(tokens: TokenStream, name: &str) -> TokenStream {
    changed(tokens, &mut |life, out| match life {
        Life::Open(place) => out.extend(lifetime(name, place.span())),
        Life::Missing(punct) => {
            let span = punct.span();
            out.extend([TokenTree::Punct(punct)]);
            out.extend(lifetime(name, span));
        }
        life => as_it_is(life, out),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(item: &str) -> (String, TokenStream) {
        let mut sig: Signature = syn::parse_str(item).expect("a signature");
        let parts = Parts::of(&mut sig).expect("it can be wrapped");
        (parts.kind(&quote!(fn), None, "_t").to_string().replace(' ', ""), quote!(#sig))
    }

    #[test]
    fn lifetimes_of_a_call_are_left_open() {
        for (item, kind) in [
            ("fn f(a: u8, (b, c): P) -> u8", "for<>fn(u8,P)->u8"),
            (
                "fn f(&self, key: &str) -> Option<&V>",
                "for<'__coro_source_t>fn(&'__coro_source_tSelf,&str)->Option<&'__coro_source_tV>",
            ),
            ("fn f<'a>(&'a self, key: &'a str, x: &u8) -> &'a V", "for<'a_t>fn(&'a_tSelf,&'a_tstr,&u8)->&'a_tV"),
            ("fn f<'a>(&'a self, x: &u8) -> V<'_>", "for<'a_t>fn(&'a_tSelf,&u8)->V<'a_t>"),
            ("fn f(x: &str) -> &str", "for<'__coro_source_t>fn(&'__coro_source_tstr)->&'__coro_source_tstr"),
            ("fn f(x: &'static str, y: &[u8])", "for<>fn(&'staticstr,&[u8])->()"),
        ] {
            assert_eq!(kinds(item).0, kind);
        }
        let (_, head) = kinds("fn f(mut self, mut a: u8, (b, c): P, ref d: Q)");
        assert_eq!(head.to_string(), quote!(fn f(self, a: u8, __coro_argument_2: P, d: Q)).to_string());
    }

    #[test]
    fn self_is_called_differently_where_it_is_the_functions() {
        let body = quote!({
            use std::fmt::{self, Write};
            self.a(|| self.b[self.c]);
            impl T for U {
                fn x(&self) {
                    self.y()
                }
            }
            vec![self];
            self::free()
        });
        let expected = quote!({
            use std::fmt::{self, Write};
            __coro_self.a(|| __coro_self.b[__coro_self.c]);
            impl T for U {
                fn x(&self) {
                    self.y()
                }
            }
            vec![__coro_self];
            self::free()
        });
        assert_eq!(without_self(body).expect("it can").to_string(), expected.to_string());
        assert!(without_self(quote!(println!("{self:?}"))).expect_err("it cannot").to_string().contains("write {}"));
    }

    #[test]
    fn what_cannot_be_wrapped_is_told_with_what_to_do() {
        for (item, told) in [
            ("unsafe fn f()", "wrap a safe one"),
            ("fn f(a: impl Fn())", "have no name"),
            ("fn f() -> impl Fn()", "have no name"),
            ("fn f() -> !", "never returns"),
            ("fn f(#[cfg(unix)] a: u8)", "put the condition on the function"),
            ("fn f<'a, 'b: 'a>(a: &'a u8, b: &'b u8)", "depend on each other"),
        ] {
            let mut sig: Signature = syn::parse_str(item).expect("a signature");
            let wrong = Parts::of(&mut sig).err().expect("refused").to_string();
            assert!(wrong.contains(told), "{item}: {wrong}");
        }
    }
}
