//! What all derives share: the shape of the struct and the reading of attributes.

use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::ext::IdentExt as _;
use syn::{Data, DeriveInput, Error, Field, Fields, GenericParam, Ident, Lifetime, LitStr, Result};

/// A struct with named fields and at most one lifetime.
pub(crate) struct Shape<'i> {
    /// Its name.
    pub(crate) name: &'i Ident,
    /// Its fields in order.
    pub(crate) fields: Vec<&'i Field>,
    /// `<'a>` as declared, or nothing.
    pub(crate) generics: TokenStream,
    /// The lifetime, where there is one.
    pub(crate) lifetime: Option<&'i Lifetime>,
}

impl<'i> Shape<'i> {
    /// Checks the struct that a derive stands on.
    pub(crate) fn new(input: &'i DeriveInput, derive: &str) -> Result<Self> {
        let Data::Struct(data) = &input.data else {
            return Err(Error::new_spanned(
                &input.ident,
                format!("derive({derive}) goes on a struct"),
            ));
        };
        let fields: Vec<&Field> = match &data.fields {
            Fields::Named(fields) => fields.named.iter().collect(),
            Fields::Unit => Vec::new(),
            Fields::Unnamed(_) => {
                let text = format!(
                    "derive({derive}) goes on a struct with named fields: the names are what it declares"
                );
                return Err(Error::new_spanned(&input.ident, text));
            }
        };
        let mut lifetime = None;
        for param in &input.generics.params {
            match param {
                GenericParam::Lifetime(param) if lifetime.is_none() => {
                    lifetime = Some(&param.lifetime)
                }
                _ => {
                    let text = format!(
                        "derive({derive}) knows at most one lifetime and no other parameter"
                    );
                    return Err(Error::new_spanned(param, text));
                }
            }
        }
        let generics = lifetime.map_or_else(TokenStream::new, |lifetime| quote!(<#lifetime>));
        Ok(Self {
            name: &input.ident,
            fields,
            generics,
            lifetime,
        })
    }
}

/// The name a field goes by outside Rust: `rename`, else its own (`r#type` is `type`).
pub(crate) fn name_of(field: &Field, rename: Option<LitStr>) -> LitStr {
    rename.unwrap_or_else(|| {
        let ident = field.ident.as_ref();
        let text = ident.map_or_else(String::new, |ident| ident.unraw().to_string());
        LitStr::new(&text, ident.map_or_else(Span::call_site, Ident::span))
    })
}

/// The string of `key = "…"`.
pub(crate) fn string(meta: &syn::meta::ParseNestedMeta<'_>) -> Result<LitStr> {
    meta.value()?.parse()
}

/// Refuses names used twice: they would be two columns of one name.
pub(crate) fn distinct(names: &[LitStr]) -> Result<()> {
    for (at, name) in names.iter().enumerate() {
        if names[..at]
            .iter()
            .any(|before| before.value() == name.value())
        {
            return Err(Error::new_spanned(
                name,
                format!("name {:?} is used twice", name.value()),
            ));
        }
    }
    Ok(())
}
