//! The entry of the library's table for an item.
//!
//! Everything is named by its path from the library, so that the program needs to have, and to have called so, nothing else.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned as _;
use syn::{Error, LitStr, Path, Result, parse_quote};

use crate::item::{Item, Kind, without_raw};
use crate::options::Options;

/// The item, and behind it its entry or what is wrong.
pub(crate) fn export(options: TokenStream, item: TokenStream) -> TokenStream {
    let entry = entry(options, item.clone()).unwrap_or_else(|error| error.to_compile_error());
    quote! { #item #entry }
}

fn entry(options: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let (options, item) = (Options::parse(options)?, Item::parse(item)?);
    agree(&options, &item)?;
    let library: Path = options.library.unwrap_or_else(|| parse_quote!(::coro));
    let private = quote!(#library::__private);
    let console = quote!(#library::console);
    let name = options.name.unwrap_or_else(|| LitStr::new(&without_raw(&item.ident), item.ident.span()));
    let (ident, doc, conditions) = (item.ident, item.doc, item.conditions);
    // The compiler shows these places, if the library has something against them.
    let check_name = quote_spanned!(name.span()=> const _: () = check_name(#name););
    let made = match item.kind {
        Kind::Static { kind } => {
            let read = quote_spanned!(kind.span()=> #console::AsValue::as_value(&#ident));
            quote!(#private::value(#console::Function::new(#name, || #read).doc(#doc).tier(#console::Tier::Read)))
        }
        Kind::Function { parameters, result } => {
            let arguments =
                parameters.iter().map(|(_, kind)| quote_spanned!(kind.span()=> #private::is_argument::<#kind>();));
            let result = result.map(|kind| quote_spanned!(kind.span()=> #private::is_result::<#kind>();));
            let names = parameters.iter().map(|(name, _)| name);
            let tier = match options.tier {
                Some((tier, span)) => Some(proc_macro2::Ident::new(tier, span)),
                None => options.value.map(|span| proc_macro2::Ident::new("Read", span)),
            };
            let tier = tier.map(|tier| quote!(.tier(#console::Tier::#tier)));
            let place = match (options.on_worker, options.worker) {
                (_, Some(index)) => Some(quote!(.worker(#index))),
                (Some(_), None) => Some(quote!(.on_worker())),
                (None, None) => None,
            };
            let function =
                quote!(#console::Function::new(#name, #ident).doc(#doc).parameters(&[#(#names),*]) #tier #place);
            let function = if options.value.is_some() { quote!(#private::value(#function)) } else { function };
            quote!(#(#arguments)* #result #function)
        }
    };
    Ok(quote! {
        #(#conditions)*
        const _: () = {
            use #private::check_name;
            #check_name

            #[allow(deprecated, reason = "whoever exports it means it")]
            fn make() -> #console::Function {
                #made
            }

            #[#private::linkme::distributed_slice(#private::CORO_EXPORTS_0_1)]
            #[linkme(crate = #private::linkme)]
            static EXPORT: #private::Export = #private::Export {
                name: #name,
                site: ::core::concat!(::core::file!(), ":", ::core::line!()),
                make,
            };
        };
    })
}

/// Whether the options go with the item.
fn agree(options: &Options, item: &Item) -> Result<()> {
    match (&item.kind, options.value) {
        (Kind::Static { .. }, _) => {
            let worker = options.worker.as_ref().map(|index| index.span());
            if let Some(span) = options.tier.map(|(_, span)| span).or(options.value).or(options.on_worker).or(worker) {
                let text = "a static is only read, by whoever may look: it takes no option but name and crate";
                return Err(Error::new(span, text));
            }
        }
        (Kind::Function { parameters, .. }, Some(span)) => {
            if !parameters.is_empty() {
                return Err(Error::new(
                    span,
                    "a value is written without parentheses: its function takes no arguments",
                ));
            }
            if let Some((_, span)) = options.tier {
                let text = "a value is only read, by whoever may look: take `tier` away, or `value`, then it is called";
                return Err(Error::new(span, text));
            }
        }
        (Kind::Function { .. }, None) => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is wrong with it, and the text that the message points at.
    fn wrong(options: &str, item: &str) -> String {
        let (options, item) = (options.parse().expect("tokens"), item.parse().expect("tokens"));
        entry(options, item).expect_err("refused").to_string()
    }

    fn right(options: &str, item: &str) -> String {
        let (options, item) = (options.parse().expect("tokens"), item.parse().expect("tokens"));
        entry(options, item).expect("taken").to_string().replace(' ', "")
    }

    #[test]
    fn what_cannot_be_exported_is_told_with_what_to_do() {
        for (item, told) in [
            ("struct S;", "only functions and statics can be exported"),
            ("const N: u8 = 1;", "with #[coro::export(value)]"),
            ("async fn f() {}", "leave `async` away"),
            ("unsafe fn f() {}", "export a safe one"),
            ("fn f<T>(t: T) {}", "one for each type"),
            ("fn f(t: impl Into<i64>) {}", "instead of `impl`"),
            ("fn f(&self) {}", "no object to call it on"),
            ("fn f(a: u8, b: u8, c: u8, d: u8, e: u8, f: u8, g: u8) {}", "at most 6 arguments"),
            ("static mut N: u8 = 1;", "use an atomic or a lock"),
        ] {
            assert!(wrong("", item).contains(told), "{item}: {}", wrong("", item));
        }
    }

    #[test]
    fn options_that_make_no_sense_are_told() {
        const FUNCTION: &str = "fn f() {}";
        for (options, item, told) in [
            ("colour", FUNCTION, "no option of #[coro::export]; there are name"),
            ("tier = \"write\"", FUNCTION, "a tier is \"read\", \"probe\" or \"act\""),
            ("tier", FUNCTION, "expected `=`"),
            ("name = f", FUNCTION, "expected string literal"),
            ("name = \"a\", name = \"b\"", FUNCTION, "`name` stands here twice"),
            ("on_worker, worker = 1", FUNCTION, "take `on_worker` away"),
            ("worker = -1", FUNCTION, "0 is the first"),
            ("value", "fn f(n: u8) {}", "takes no arguments"),
            ("value, tier = \"act\"", FUNCTION, "take `tier` away"),
            ("tier = \"act\"", "static N: u8 = 1;", "no option but name and crate"),
            ("on_worker", "static N: u8 = 1;", "no option but name and crate"),
        ] {
            assert!(wrong(options, item).contains(told), "{options}: {}", wrong(options, item));
        }
    }

    #[test]
    fn the_item_comes_out_as_it_went_in() {
        for (options, item) in [("", "#[inline] fn f (n : u8) -> u8 { n }"), ("nonsense", "static N : u8 = 1 ;")] {
            let out = export(options.parse().expect("tokens"), item.parse().expect("tokens")).to_string();
            let item: TokenStream = item.parse().expect("tokens");
            assert!(out.starts_with(&item.to_string()), "{out}");
        }
    }

    #[test]
    fn names_help_and_options_go_into_the_entry() {
        let item =
            "/// How many\n/// there are.\n///\n/// More.\n#[cfg(unix)] fn r#type(_n: u8, (a, b): P, mut c: u8) {}";
        let entry = right("tier = \"probe\", worker = 2, crate = own::path", item);
        for part in [
            "#[cfg(unix)]const_:()",
            "own::path::console::Function::new(\"type\",r#type)",
            ".doc(\"Howmanythereare.\").parameters(&[\"n\",\"\",\"c\"])",
            ".tier(own::path::console::Tier::Probe).worker(2)",
            "#[linkme(crate=own::path::__private::linkme)]",
            "own::path::__private::is_argument::<P>()",
        ] {
            assert!(entry.contains(part), "{part} in {entry}");
        }
        assert!(!entry.contains("::coro"), "{entry}");
        let entry = right("value, name = \"a.b\"", "fn f() -> u8 { 1 }");
        assert!(
            entry.contains("value(::coro::console::Function::new(\"a.b\",f)") && entry.contains("Tier::Read"),
            "{entry}"
        );
        let entry = right("", "fn f() {}");
        assert!(!entry.contains(".tier(") && !entry.contains("value("), "{entry}");
    }
}
