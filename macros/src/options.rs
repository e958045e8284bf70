//! What stands in the parentheses of the attribute.
//!
//! Must not know: what it stands on.

use proc_macro2::{Span, TokenStream};
use syn::meta::ParseNestedMeta;
use syn::parse::Parser as _;
use syn::{Error, LitInt, LitStr, Path, Result};

/// As they were written. Whether they go with the item is for others to say.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) name: Option<LitStr>,
    /// The variant of the library's `Tier`, and where it was written.
    pub(crate) tier: Option<(&'static str, Span)>,
    pub(crate) value: Option<Span>,
    pub(crate) on_worker: Option<Span>,
    pub(crate) worker: Option<LitInt>,
    /// The library, if the program calls it otherwise than `coro`.
    pub(crate) library: Option<Path>,
}

impl Options {
    pub(crate) fn parse(tokens: TokenStream) -> Result<Options> {
        let mut options = Options::default();
        syn::meta::parser(|meta| options.take(&meta)).parse2(tokens)?;
        match (&options.on_worker, &options.worker) {
            (Some(span), Some(_)) => Err(Error::new(*span, "`worker = N` says it already: take `on_worker` away")),
            _ => Ok(options),
        }
    }

    fn take(&mut self, meta: &ParseNestedMeta<'_>) -> Result<()> {
        let option = meta.path.get_ident().map(ToString::to_string).unwrap_or_default();
        let span = meta.path.get_ident().map_or_else(Span::call_site, |ident| ident.span());
        let twice = match option.as_str() {
            "name" => self.name.replace(meta.value()?.parse()?).is_some(),
            "tier" => {
                let word: LitStr = meta.value()?.parse()?;
                let tier = match word.value().as_str() {
                    "read" => "Read",
                    "probe" => "Probe",
                    "act" => "Act",
                    _ => return Err(Error::new(word.span(), "a tier is \"read\", \"probe\" or \"act\"")),
                };
                self.tier.replace((tier, span)).is_some()
            }
            "value" => self.value.replace(span).is_some(),
            "on_worker" => self.on_worker.replace(span).is_some(),
            "worker" => {
                let index: LitInt = meta.value()?.parse()?;
                if index.base10_parse::<usize>().is_err() {
                    return Err(Error::new(index.span(), "a worker is told by its number, and 0 is the first"));
                }
                self.worker.replace(index).is_some()
            }
            "crate" => self.library.replace(meta.value()?.call(Path::parse_mod_style)?).is_some(),
            _ => {
                return Err(meta.error(
                    "no option of #[coro::export]; there are name = \"…\", tier = \"read\", value, on_worker, worker = 0 and \
                     crate = path",
                ));
            }
        };
        if twice { Err(meta.error(format!("`{option}` stands here twice"))) } else { Ok(()) }
    }
}
