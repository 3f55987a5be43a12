//! `derive(Config)`: which values, their defaults as JSON, and the check at start.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned as _;
use syn::{
    DeriveInput, Error, Expr, ExprLit, ExprUnary, Field, Lit, LitStr, Path, Result, Type, UnOp,
};

use crate::attrs::{Shape, distinct, name_of, string};

/// What stands on one value.
struct Item {
    name: LitStr,
    default: Option<LitStr>,
    secret: bool,
}

pub(crate) fn derive(input: &DeriveInput) -> Result<TokenStream> {
    let shape = Shape::new(input, "Config")?;
    if let Some(lifetime) = shape.lifetime {
        return Err(Error::new_spanned(
            lifetime,
            "a configuration outlives every batch: it owns its values",
        ));
    }
    let check = check(input)?;
    let items = shape
        .fields
        .iter()
        .map(|field| item(field))
        .collect::<Result<Vec<_>>>()?;
    distinct(
        &items
            .iter()
            .map(|item| item.name.clone())
            .collect::<Vec<_>>(),
    )?;

    let name = shape.name;
    let specs = shape.fields.iter().zip(&items).map(|(field, item)| {
        let (ty, Item { name, default, secret }) = (&field.ty, item);
        let default = default.as_ref().map_or_else(|| quote!(None), |json| quote!(Some(#json)));
        quote_spanned!(ty.span()=> ::wasmill_sdk::__private::ConfigSpec::of::<#ty>(#name, #default, #secret))
    });
    let reads = shape.fields.iter().zip(&items).map(|(field, item)| {
        let (ident, ty, name) = (&field.ident, &field.ty, &item.name);
        quote_spanned!(ty.span()=> #ident: reader.config::<#ty>(#name)?)
    });
    let check = check.map(|function| {
        quote! {
            fn check(&self) -> ::std::result::Result<(), ::std::string::String> {
                #function(self)
            }
        }
    });
    Ok(quote! {
        #[automatically_derived]
        impl ::wasmill_sdk::Configuration for #name {
            const ITEMS: &'static [::wasmill_sdk::__private::ConfigSpec] = &[#(#specs),*];

            fn read(
                reader: &mut ::wasmill_sdk::__private::Reader<'_>,
            ) -> ::std::result::Result<Self, ::std::string::String> {
                let _ = &reader;
                ::std::result::Result::Ok(Self { #(#reads),* })
            }

            #check
        }
    })
}

/// `#[config(check = function)]` on the struct.
fn check(input: &DeriveInput) -> Result<Option<Path>> {
    let mut function = None;
    for attr in input
        .attrs
        .iter()
        .filter(|attr| attr.path().is_ident("config"))
    {
        attr.parse_nested_meta(|meta| {
            if !meta.path.is_ident("check") {
                return Err(meta.error("#[config(…)] on a struct knows `check`"));
            }
            function = Some(meta.value()?.parse()?);
            Ok(())
        })?;
    }
    Ok(function)
}

fn item(field: &Field) -> Result<Item> {
    let (mut default, mut secret, mut rename) = (None, false, None);
    for attr in field
        .attrs
        .iter()
        .filter(|attr| attr.path().is_ident("config"))
    {
        attr.parse_nested_meta(|meta| {
            if meta.path.is_ident("default") {
                let value: Expr = meta.value()?.parse()?;
                default = Some(json(&field.ty, &value)?);
            } else if meta.path.is_ident("secret") {
                secret = true;
            } else if meta.path.is_ident("rename") {
                rename = Some(string(&meta)?);
            } else {
                return Err(meta.error("#[config(…)] knows `default`, `secret` and `rename`"));
            }
            Ok(())
        })?;
    }
    Ok(Item {
        name: name_of(field, rename),
        default,
        secret,
    })
}

/// A default as JSON text of the field's type.
fn json(ty: &Type, value: &Expr) -> Result<LitStr> {
    let ty = match ty {
        Type::Path(path) => path.path.segments.last().map(|last| last.ident.to_string()),
        _ => None,
    };
    let (sign, literal) = match value {
        Expr::Unary(ExprUnary {
            op: UnOp::Neg(_),
            expr,
            ..
        }) => ("-", &**expr),
        other => ("", other),
    };
    let literal = match literal {
        Expr::Lit(ExprLit { lit, .. }) => Some(lit),
        _ => None,
    };
    let text = match (ty.as_deref(), literal) {
        (Some("bool"), Some(Lit::Bool(value))) if sign.is_empty() => value.value.to_string(),
        (Some("i64"), Some(Lit::Int(value))) => format!("{sign}{}", value.base10_digits())
            .parse::<i64>()
            .map_err(|error| Error::new_spanned(value, error))?
            .to_string(),
        (Some("f64"), Some(Lit::Int(value))) => float(sign, value.base10_digits(), value)?,
        (Some("f64"), Some(Lit::Float(value))) => float(sign, value.base10_digits(), value)?,
        (Some("String"), Some(Lit::Str(value))) if sign.is_empty() => quoted(&value.value()),
        _ => {
            let text = "a default is a literal of the value's type: a bool, a number or a string";
            return Err(Error::new_spanned(value, text));
        }
    };
    Ok(LitStr::new(&text, value.span()))
}

fn float(sign: &str, digits: &str, at: &impl quote::ToTokens) -> Result<String> {
    let value: f64 = format!("{sign}{digits}")
        .parse()
        .map_err(|error| Error::new_spanned(at, error))?;
    if !value.is_finite() {
        return Err(Error::new_spanned(at, "a default is a finite number"));
    }
    Ok(format!("{value:?}"))
}

fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
