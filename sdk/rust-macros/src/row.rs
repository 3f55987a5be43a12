//! `derive(Row)`: which columns, how each is written, and the key of deletes.

use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use syn::spanned::Spanned as _;
use syn::{DeriveInput, Field, LitStr, Result};

use crate::attrs::{Shape, distinct, name_of, string};

pub(crate) fn derive(input: &DeriveInput) -> Result<TokenStream> {
    let shape = Shape::new(input, "Row")?;
    let columns = shape
        .fields
        .iter()
        .map(|field| column(field))
        .collect::<Result<Vec<_>>>()?;
    distinct(
        &columns
            .iter()
            .map(|(name, _)| name.clone())
            .collect::<Vec<_>>(),
    )?;
    if shape.fields.is_empty() {
        return Err(syn::Error::new_spanned(
            shape.name,
            "a row has at least one column",
        ));
    }

    let (name, generics) = (shape.name, &shape.generics);
    let specs = shape
        .fields
        .iter()
        .zip(&columns)
        .map(|(field, (column, _))| {
            let ty = &field.ty;
            quote_spanned!(ty.span()=> ::wasmill_sdk::__private::ColumnSpec::of::<#ty>(#column))
        });
    let puts = shape.fields.iter().map(|field| {
        let (ident, ty) = (&field.ident, &field.ty);
        quote_spanned!(ty.span()=> ::wasmill_sdk::__private::put::<#ty>(&self.#ident, out);)
    });
    let keys: Vec<&&Field> = shape
        .fields
        .iter()
        .zip(&columns)
        .filter_map(|(field, (_, key))| key.then_some(field))
        .collect();
    let mut at = 0_usize;
    let key_puts = shape.fields.iter().zip(&columns).map(|(field, (_, key))| {
        if !*key {
            return quote!(::wasmill_sdk::__private::put_unset(out););
        }
        let (index, ty) = (syn::Index::from(at), &field.ty);
        at += 1;
        quote!(::wasmill_sdk::__private::put::<#ty>(&key.#index, out);)
    });
    let (key_type, put_key, constructor) = if keys.is_empty() {
        (
            quote!(::wasmill_sdk::__private::NoKey),
            quote!(let _ = out; match *key {}),
            quote!(),
        )
    } else {
        let types: Vec<_> = keys.iter().map(|field| &field.ty).collect();
        let idents: Vec<_> = keys
            .iter()
            .enumerate()
            .map(|(at, field)| {
                field
                    .ident
                    .clone()
                    .unwrap_or_else(|| format_ident!("key{at}"))
            })
            .collect();
        let vis = &input.vis;
        let constructor = quote! {
            #[automatically_derived]
            impl #generics #name #generics {
                /// The key of a row to delete.
                #[allow(dead_code, reason = "not every plugin deletes")]
                #[inline]
                #vis fn key(#(#idents: #types),*) -> ::wasmill_sdk::Key<Self> {
                    ::wasmill_sdk::__private::key((#(#idents,)*))
                }
            }
        };
        (quote!((#(#types,)*)), quote!(#(#key_puts)*), constructor)
    };
    Ok(quote! {
        #[automatically_derived]
        impl #generics ::wasmill_sdk::Row for #name #generics {
            type Key = #key_type;

            const COLUMNS: &'static [::wasmill_sdk::__private::ColumnSpec] = &[#(#specs),*];

            #[inline]
            fn put(&self, out: &mut ::std::vec::Vec<u8>) {
                #(#puts)*
            }

            #[inline]
            fn put_key(key: &Self::Key, out: &mut ::std::vec::Vec<u8>) {
                #put_key
            }
        }
        #constructor
    })
}

/// Name, and whether it is part of the key.
fn column(field: &Field) -> Result<(LitStr, bool)> {
    let (mut key, mut rename) = (false, None);
    for attr in field
        .attrs
        .iter()
        .filter(|attr| attr.path().is_ident("row"))
    {
        attr.parse_nested_meta(|meta| {
            if meta.path.is_ident("key") {
                key = true;
            } else if meta.path.is_ident("rename") {
                rename = Some(string(&meta)?);
            } else {
                return Err(meta.error("#[row(…)] knows `key` and `rename`"));
            }
            Ok(())
        })?;
    }
    Ok((name_of(field, rename), key))
}
