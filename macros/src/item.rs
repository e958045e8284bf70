//! The function or static that the attribute stands on.
//!
//! Must not know: the options, the library.

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::ToTokens as _;
use syn::spanned::Spanned as _;
use syn::{
    Attribute, Error, Expr, ExprLit, FnArg, GenericParam, Ident, Item as Parsed, ItemFn, ItemStatic, Lit, Meta, Pat,
    Result, ReturnType, StaticMutability, Type,
};

/// Arguments that a function of the console can have.
const MOST_PARAMETERS: usize = 6;

/// What is to be exported.
pub(crate) struct Item {
    pub(crate) ident: Ident,
    /// The first paragraph of its documentation, in one line.
    pub(crate) doc: String,
    /// Under which conditions it is compiled at all.
    pub(crate) conditions: Vec<Attribute>,
    pub(crate) kind: Kind,
}

pub(crate) enum Kind {
    /// With the names, empty where there are none, and types of its arguments, and the type of its result if that can be
    /// written elsewhere.
    Function {
        parameters: Vec<(String, Type)>,
        result: Option<Box<Type>>,
    },
    Static {
        kind: Box<Type>,
    },
}

impl Item {
    pub(crate) fn parse(tokens: TokenStream) -> Result<Item> {
        match syn::parse2(tokens)? {
            Parsed::Fn(function) => of_function(function),
            Parsed::Static(variable) => of_static(variable),
            other => Err(Error::new(
                start(&other),
                "only functions and statics can be exported; for another value write a function without arguments that returns it, \
                 with #[coro::export(value)]",
            )),
        }
    }
}

/// The first word of an item, behind its attributes.
fn start(item: &Parsed) -> Span {
    match item {
        Parsed::Const(item) => item.const_token.span,
        Parsed::Enum(item) => item.enum_token.span,
        Parsed::Impl(item) => item.impl_token.span,
        Parsed::Mod(item) => item.mod_token.span,
        Parsed::Struct(item) => item.struct_token.span,
        Parsed::Trait(item) => item.trait_token.span,
        other => other.span(),
    }
}

fn of_function(function: ItemFn) -> Result<Item> {
    let signature = function.sig;
    if let Some(word) = signature.asyncness {
        let text = "an async function cannot be exported: leave `async` away; it may wait, on a thread of its own or, with \
                    `on_worker`, in a task";
        return Err(Error::new(word.span, text));
    }
    if let Some(word) = signature.unsafety {
        let text =
            "an unsafe function cannot be exported: export a safe one that checks what this one demands, and calls it";
        return Err(Error::new(word.span, text));
    }
    let generic = |parameter: &&GenericParam| !matches!(parameter, GenericParam::Lifetime(_));
    if let Some(parameter) = signature.generics.params.iter().find(generic) {
        let text = "a generic function cannot be exported: export one for each type that is wanted";
        return Err(Error::new_spanned(parameter, text));
    }
    let mut parameters = Vec::new();
    for input in signature.inputs {
        if parameters.len() == MOST_PARAMETERS {
            let text = format!(
                "an exported function has at most {MOST_PARAMETERS} arguments: take several as one list or map"
            );
            return Err(Error::new_spanned(input, text));
        }
        match input {
            FnArg::Receiver(receiver) => {
                let text = "a method cannot be exported, for there is no object to call it on: export a function that finds \
                            the object itself";
                return Err(Error::new_spanned(receiver, text));
            }
            FnArg::Typed(typed) => {
                if let Type::ImplTrait(kind) = &*typed.ty {
                    let text = "the argument of an exported function has one type: write it instead of `impl`";
                    return Err(Error::new_spanned(kind, text));
                }
                parameters.push((name_of(&typed.pat), *typed.ty));
            }
        }
    }
    let result = match signature.output {
        ReturnType::Type(_, kind) if !has_impl(kind.to_token_stream()) => Some(kind),
        _ => None,
    };
    let kind = Kind::Function { parameters, result };
    Ok(Item { ident: signature.ident, doc: doc(&function.attrs), conditions: conditions(function.attrs), kind })
}

fn of_static(variable: ItemStatic) -> Result<Item> {
    if let StaticMutability::Mut(word) = variable.mutability {
        let text = "a `static mut` cannot be exported, for it may change while it is read: use an atomic or a lock";
        return Err(Error::new(word.span, text));
    }
    let kind = Kind::Static { kind: variable.ty };
    Ok(Item { ident: variable.ident, doc: doc(&variable.attrs), conditions: conditions(variable.attrs), kind })
}

/// Whether there is an `impl Trait` in a type, which stands for one that only the function knows.
pub(crate) fn has_impl(tokens: TokenStream) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Ident(word) => word == "impl",
        TokenTree::Group(group) => has_impl(group.stream()),
        _ => false,
    })
}

/// How an argument is called; those that are taken apart are not.
fn name_of(pattern: &Pat) -> String {
    match pattern {
        Pat::Ident(pattern) => without_raw(&pattern.ident).trim_start_matches('_').to_owned(),
        _ => String::new(),
    }
}

/// `type` for `r#type`.
pub(crate) fn without_raw(ident: &Ident) -> String {
    let text = ident.to_string();
    text.strip_prefix("r#").map(str::to_owned).unwrap_or(text)
}

fn conditions(attributes: Vec<Attribute>) -> Vec<Attribute> {
    attributes.into_iter().filter(|attribute| attribute.path().is_ident("cfg")).collect()
}

/// The lines up to the first empty one.
fn doc(attributes: &[Attribute]) -> String {
    let texts = attributes.iter().filter_map(|attribute| match &attribute.meta {
        Meta::NameValue(meta) if meta.path.is_ident("doc") => match &meta.value {
            Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Some(text.value()),
            _ => None,
        },
        _ => None,
    });
    let lines: Vec<String> =
        texts.flat_map(|text| text.split('\n').map(|line| line.trim().to_owned()).collect::<Vec<_>>()).collect();
    let begun = lines.iter().skip_while(|line| line.is_empty());
    begun.take_while(|line| !line.is_empty()).cloned().collect::<Vec<_>>().join(" ")
}
