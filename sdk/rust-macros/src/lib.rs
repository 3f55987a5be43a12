//! The derives `Fields`, `Row`, `Config` and the attribute `#[plugin]` of `wasmill-sdk`; documented here, used
//! through `wasmill_sdk::prelude`. They write calls into the SDK and hold no logic of their own.
#![warn(missing_docs, unreachable_pub, clippy::unwrap_used)]
#![deny(unsafe_code)]

mod attrs;
mod config;
mod fields;
mod plugin;
mod row;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Declares the fields that the host decodes from every record of an input, in this order.
///
/// The struct has named fields and at most one lifetime, that of the batch. A field's type is its column type;
/// `Option` means that it may be null or absent (otherwise such a record is a dead letter).
///
/// | attribute | meaning |
/// |---|---|
/// | none | `value:/NAME`, NAME being the field's |
/// | `#[field(path = "/a/b")]` | a JSON pointer into the value |
/// | `#[field(from = "key")]` | also `key:/path`, `value`, `value:/path`, `header:NAME`, `topic`, `partition`, `offset`, `timestamp` |
/// | `#[field(unit = "ms")]` | an epoch number (`s`, `ms`, `us`, `ns`) becomes a timestamp, date or time |
/// | `#[field(rename = "type")]` | the field's name, where Rust cannot say it |
/// | `#[fields(raw)]`, `#[fields(headers)]` on the struct | also wants the bytes, the headers |
#[proc_macro_derive(Fields, attributes(field, fields))]
pub fn derive_fields(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    fields::derive(&input)
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}

/// Declares the columns of a route, in this order.
///
/// | attribute | meaning |
/// |---|---|
/// | `#[row(key)]` | part of the key: `MyRow::key(…)` takes these, in order, for `out.ROUTE.delete(…)` |
/// | `#[row(rename = "type")]` | the column's name, where Rust cannot say it |
#[proc_macro_derive(Row, attributes(row))]
pub fn derive_row(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    row::derive(&input)
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}

/// Declares what an operator sets: values of type `bool`, `i64`, `f64` or `String`.
///
/// | attribute | meaning |
/// |---|---|
/// | `#[config(default = "paid")]` | without one the operator has to set the value |
/// | `#[config(secret)]` | never printed |
/// | `#[config(rename = "type")]` | the value's name, where Rust cannot say it |
/// | `#[config(check = function)]` on the struct | `fn(&Self) -> Result<(), String>`, asked once at start |
#[proc_macro_derive(Config, attributes(config))]
pub fn derive_config(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    config::derive(&input)
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}

/// Makes a function a plugin: `#[plugin(inputs(quakes: Quake), routes(quakes: QuakeRow, …))]`.
///
/// The function takes `&Config`, `Record<Quake<'_>>` and `&mut Out`, and answers a `Result`. It runs once a
/// record. Generated beside it: `Out`, with one member a route that knows `.write(&row)` and
/// `.delete(Row::key(…))`, and `Plugin`, the type that the test harness takes.
///
/// With several inputs the attribute stands on a module that holds one function an input, named like it; it
/// begins with `use super::*;`.
#[proc_macro_attribute]
pub fn plugin(args: TokenStream, item: TokenStream) -> TokenStream {
    let item = proc_macro2::TokenStream::from(item);
    plugin::expand(args.into(), &item)
        .unwrap_or_else(|error| {
            let error = error.into_compile_error();
            // The author's own item stays, so that one mistake is not reported as ten.
            quote::quote!(#item #error)
        })
        .into()
}
