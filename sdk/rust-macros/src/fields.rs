//! `derive(Fields)`: which fields, where from, and how each is read.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned as _;
use syn::{DeriveInput, Error, Field, LitStr, Result};

use crate::attrs::{Shape, distinct, name_of, string};

/// What stands on one field.
struct Source {
    name: LitStr,
    from: LitStr,
    unit: Option<LitStr>,
}

pub(crate) fn derive(input: &DeriveInput) -> Result<TokenStream> {
    let shape = Shape::new(input, "Fields")?;
    let (raw, headers) = wants(input)?;
    let sources = shape
        .fields
        .iter()
        .map(|field| source(field))
        .collect::<Result<Vec<_>>>()?;
    distinct(
        &sources
            .iter()
            .map(|source| source.name.clone())
            .collect::<Vec<_>>(),
    )?;

    let batch = shape
        .lifetime
        .map_or_else(|| quote!('__batch), |lifetime| quote!(#lifetime));
    let (name, generics) = (shape.name, &shape.generics);
    let specs = shape.fields.iter().zip(&sources).map(|(field, source)| {
        let (ty, Source { name, from, unit }) = (&field.ty, source);
        let unit = unit.as_ref().map_or_else(|| quote!(None), |unit| quote!(Some(#unit)));
        quote_spanned!(ty.span()=> ::wasmill_sdk::__private::FieldSpec::of::<#ty>(#name, #from, #unit))
    });
    let reads = shape.fields.iter().zip(&sources).map(|(field, source)| {
        let (ident, ty, name) = (&field.ident, &field.ty, &source.name);
        quote_spanned!(ty.span()=> #ident: ::wasmill_sdk::__private::read::<#ty>(reader, #name)?)
    });
    let raw_impl = raw.then(|| {
        quote! {
            #[automatically_derived]
            impl #generics ::wasmill_sdk::RawFields for #name #generics {}
        }
    });
    let header_impl = headers.then(|| {
        quote! {
            #[automatically_derived]
            impl #generics ::wasmill_sdk::HeaderFields for #name #generics {}
        }
    });
    Ok(quote! {
        #[automatically_derived]
        impl<#batch> ::wasmill_sdk::Fields<#batch> for #name #generics {
            const RAW: bool = #raw;
            const HEADERS: bool = #headers;

            const FIELDS: &'static [::wasmill_sdk::__private::FieldSpec] = &[#(#specs),*];

            #[inline]
            fn read(reader: &mut ::wasmill_sdk::__private::Reader<#batch>) -> ::wasmill_sdk::Result<Self> {
                let _ = &reader;
                ::std::result::Result::Ok(Self { #(#reads),* })
            }
        }
        #raw_impl
        #header_impl
    })
}

/// `#[fields(raw, headers)]` on the struct.
fn wants(input: &DeriveInput) -> Result<(bool, bool)> {
    let (mut raw, mut headers) = (false, false);
    for attr in input
        .attrs
        .iter()
        .filter(|attr| attr.path().is_ident("fields"))
    {
        attr.parse_nested_meta(|meta| {
            if meta.path.is_ident("raw") {
                raw = true;
            } else if meta.path.is_ident("headers") {
                headers = true;
            } else {
                return Err(meta.error("#[fields(…)] knows `raw` and `headers`"));
            }
            Ok(())
        })?;
    }
    Ok((raw, headers))
}

fn source(field: &Field) -> Result<Source> {
    let (mut from, mut path, mut unit, mut rename) = (None, None, None, None);
    for attr in field
        .attrs
        .iter()
        .filter(|attr| attr.path().is_ident("field"))
    {
        attr.parse_nested_meta(|meta| {
            let slot = if meta.path.is_ident("from") {
                &mut from
            } else if meta.path.is_ident("path") {
                &mut path
            } else if meta.path.is_ident("unit") {
                &mut unit
            } else if meta.path.is_ident("rename") {
                &mut rename
            } else {
                return Err(meta.error("#[field(…)] knows `from`, `path`, `unit` and `rename`"));
            };
            let value = string(&meta)?;
            if slot.replace(value).is_some() {
                return Err(meta.error("said twice"));
            }
            Ok(())
        })?;
    }
    let name = name_of(field, rename);
    let from = match (from, path) {
        (Some(from), None) => checked_from(from)?,
        (None, Some(path)) if path.value().starts_with('/') => {
            LitStr::new(&format!("value:{}", path.value()), path.span())
        }
        (None, Some(path)) => {
            return Err(Error::new_spanned(
                &path,
                "a path is a JSON pointer: it begins with `/`",
            ));
        }
        (None, None) => {
            // RFC 6901: `~` and `/` inside a name are written `~0` and `~1`.
            let pointer = name.value().replace('~', "~0").replace('/', "~1");
            LitStr::new(&format!("value:/{pointer}"), name.span())
        }
        (Some(from), Some(_)) => {
            return Err(Error::new_spanned(
                from,
                "`from` and `path` say the same thing: keep one",
            ));
        }
    };
    if let Some(unit) = &unit
        && !matches!(unit.value().as_str(), "s" | "ms" | "us" | "ns")
    {
        return Err(Error::new_spanned(
            unit,
            "a unit is \"s\", \"ms\", \"us\" or \"ns\"",
        ));
    }
    Ok(Source { name, from, unit })
}

fn checked_from(from: LitStr) -> Result<LitStr> {
    let text = from.value();
    let known = matches!(
        text.as_str(),
        "value" | "key" | "topic" | "partition" | "offset" | "timestamp"
    ) || ["value:/", "key:/"]
        .iter()
        .any(|start| text.starts_with(start))
        || text
            .strip_prefix("header:")
            .is_some_and(|name| !name.is_empty());
    if known {
        return Ok(from);
    }
    Err(Error::new_spanned(
        &from,
        "`from` is \"value\", \"value:/path\", \"key\", \"key:/path\", \"header:NAME\", \"topic\", \"partition\", \
         \"offset\" or \"timestamp\"",
    ))
}
