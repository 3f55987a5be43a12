//! `#[plugin]`: the function or module stays as it is; beside it come `Out`, `Plugin` and the component's exports.

use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use syn::parse::{Parse, ParseStream, Parser as _};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned as _;
use syn::{
    Error, FnArg, Ident, Item, ItemFn, ItemMod, LitStr, Result, Token, Type, Visibility,
    parenthesized, parse_quote,
};

/// `name: Type`.
struct Named {
    name: Ident,
    ty: Type,
}

impl Parse for Named {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let name = input.parse()?;
        input.parse::<Token![:]>()?;
        let ty: Type = input.parse()?;
        Ok(Self { name, ty })
    }
}

/// `inputs(…), routes(…)`.
#[derive(Default)]
struct Args {
    inputs: Vec<Named>,
    routes: Vec<Named>,
}

impl Args {
    fn parse(tokens: TokenStream) -> Result<Self> {
        let parser = |input: ParseStream<'_>| {
            let mut args = Self::default();
            while !input.is_empty() {
                let word: Ident = input.parse()?;
                let inside;
                parenthesized!(inside in input);
                let named = Punctuated::<Named, Token![,]>::parse_terminated(&inside)?;
                let slot = match word.to_string().as_str() {
                    "inputs" => &mut args.inputs,
                    "routes" => &mut args.routes,
                    _ => {
                        return Err(Error::new_spanned(
                            word,
                            "#[plugin(…)] knows `inputs(…)` and `routes(…)`",
                        ));
                    }
                };
                slot.extend(named);
                if !input.is_empty() {
                    input.parse::<Token![,]>()?;
                }
            }
            Ok(args)
        };
        let args = parser.parse2(tokens)?;
        for (what, named, most) in [
            ("inputs", &args.inputs, 65_536),
            ("routes", &args.routes, 256),
        ] {
            let here = proc_macro2::Span::call_site();
            if named.is_empty() {
                return Err(Error::new(
                    here,
                    format!("#[plugin] wants {what}(name: Type, …)"),
                ));
            }
            if named.len() > most {
                return Err(Error::new(here, format!("at most {most} {what}")));
            }
            for (at, one) in named.iter().enumerate() {
                if named[..at].iter().any(|before| before.name == one.name) {
                    return Err(Error::new_spanned(
                        &one.name,
                        format!("`{}` is named twice", one.name),
                    ));
                }
            }
        }
        Ok(args)
    }
}

pub(crate) fn expand(args: TokenStream, item: &TokenStream) -> Result<TokenStream> {
    let args = Args::parse(args)?;
    match syn::parse2::<Item>(item.clone())? {
        Item::Fn(function) => of_function(&args, &function),
        Item::Mod(module) => of_module(&args, module),
        other => Err(Error::new_spanned(
            other,
            "#[plugin] goes on a function, or on a module with one function an input",
        )),
    }
}

fn of_function(args: &Args, function: &ItemFn) -> Result<TokenStream> {
    if let [_, second, ..] = &args.inputs[..] {
        let text =
            "several inputs: put #[plugin] on a module with one function an input, named like it";
        return Err(Error::new_spanned(&second.name, text));
    }
    let config = config_of(function)?;
    let name = &function.sig.ident;
    let generated = generate(args, &function.vis, &config, &[quote!(#name)]);
    Ok(quote!(#function #generated))
}

fn of_module(args: &Args, mut module: ItemMod) -> Result<TokenStream> {
    let (vis, name) = (module.vis.clone(), module.ident.clone());
    let Some((_, items)) = &mut module.content else {
        return Err(Error::new_spanned(
            name,
            "#[plugin] wants to see the module's functions: write them here",
        ));
    };
    let (mut config, mut calls) = (None::<Type>, Vec::new());
    for input in &args.inputs {
        let function = items.iter_mut().find_map(|item| match item {
            Item::Fn(function) if function.sig.ident == input.name => Some(function),
            _ => None,
        });
        let Some(function) = function else {
            let text = format!(
                "module `{name}` has no function `{}` for this input",
                input.name
            );
            return Err(Error::new_spanned(&input.name, text));
        };
        if matches!(function.vis, Visibility::Inherited) {
            function.vis = parse_quote!(pub(super));
        }
        let own = config_of(function)?;
        if let Some(first) = &config
            && quote!(#first).to_string() != quote!(#own).to_string()
        {
            return Err(Error::new_spanned(
                own,
                "all functions of a plugin take the same configuration",
            ));
        }
        config = Some(own);
        let function = &input.name;
        calls.push(quote!(#name::#function));
    }
    let config =
        config.ok_or_else(|| Error::new_spanned(&name, "#[plugin] wants inputs(name: Type, …)"))?;
    let generated = generate(args, &vis, &config, &calls);
    Ok(quote!(#module #generated))
}

/// The `T` of the first argument, `&T`.
fn config_of(function: &ItemFn) -> Result<Type> {
    let text = "a plugin's function takes (&Config, Record<Fields>, &mut Out) and answers Result";
    if function.sig.inputs.len() != 3 {
        return Err(Error::new_spanned(&function.sig, text));
    }
    match function.sig.inputs.first() {
        Some(FnArg::Typed(arg)) => match &*arg.ty {
            Type::Reference(reference) if reference.mutability.is_none() => {
                Ok((*reference.elem).clone())
            }
            other => Err(Error::new_spanned(other, text)),
        },
        _ => Err(Error::new_spanned(&function.sig, text)),
    }
}

fn generate(args: &Args, vis: &Visibility, config: &Type, calls: &[TokenStream]) -> TokenStream {
    let text =
        |ident: &Ident| LitStr::new(&syn::ext::IdentExt::unraw(ident).to_string(), ident.span());
    let members: Vec<&Ident> = args.routes.iter().map(|route| &route.name).collect();
    let handles: Vec<Ident> = members
        .iter()
        .map(|name| format_ident!("__Route_{}", name))
        .collect();
    let indices = 0..=u8::MAX;

    let route_types = args.routes.iter().zip(&handles).map(|(Named { name, ty }, handle)| {
        let doc = format!("The route `{name}`.");
        quote_spanned! {ty.span()=>
            #[doc = #doc]
            #[doc(hidden)]
            #[allow(non_camel_case_types, reason = "named after a route")]
            #[derive(Clone, Copy, Debug)]
            #vis struct #handle<'__out>(::wasmill_sdk::__private::RouteHandle<'__out>);

            #[allow(dead_code, elided_lifetimes_in_paths, private_interfaces, reason = "as the author's row has it")]
            impl #handle<'_> {
                /// Writes a row.
                #[inline]
                #vis fn write(&mut self, row: &#ty) -> ::wasmill_sdk::Result {
                    self.0.write(row)
                }

                /// Deletes the row with a key.
                #[inline]
                #vis fn delete(&mut self, key: ::wasmill_sdk::Key<#ty>) -> ::wasmill_sdk::Result {
                    self.0.delete(&key)
                }
            }
        }
    });
    let inputs = args.inputs.iter().map(|Named { name, ty }| {
        let name = text(name);
        quote_spanned!(ty.span()=> ::wasmill_sdk::__private::InputSpec::of::<#ty>(#name))
    });
    let routes = args.routes.iter().map(|Named { name, ty }| {
        let name = text(name);
        quote_spanned!(ty.span()=> ::wasmill_sdk::__private::RouteSpec::of::<#ty>(#name))
    });
    let arms =
        args.inputs
            .iter()
            .zip(calls)
            .zip(0..=u16::MAX)
            .map(|((Named { ty, .. }, call), index)| {
                let read =
                    quote_spanned!(ty.span()=> <#ty as ::wasmill_sdk::Fields>::read(&mut cells)?);
                quote! {
                    #index => {
                        let fields = #read;
                        #call(config, ::wasmill_sdk::__private::record(fields, raw), &mut out)
                    }
                }
            });
    quote! {
        /// The routes of the plugin: one member each.
        #[derive(Debug)]
        #vis struct Out<'__out> {
            #(#[doc = "A route."] #vis #members: #handles<'__out>,)*
        }

        #(#route_types)*

        /// The plugin, for the test harness.
        #[derive(Clone, Copy, Debug)]
        #vis struct Plugin;

        #[allow(elided_lifetimes_in_paths, reason = "types as the author wrote them in the attribute")]
        impl ::wasmill_sdk::Plugin for Plugin {
            type Config = #config;

            const INPUTS: &'static [::wasmill_sdk::__private::InputSpec] = &[#(#inputs),*];

            const ROUTES: &'static [::wasmill_sdk::__private::RouteSpec] = &[#(#routes),*];

            #[inline]
            fn record(
                config: &Self::Config,
                input: u16,
                raw: ::wasmill_sdk::__private::RawRecord<'_>,
                rows: &::wasmill_sdk::__private::RefCell<::wasmill_sdk::__private::Rows>,
            ) -> ::wasmill_sdk::Result {
                let mut out = Out { #(#members: #handles(::wasmill_sdk::__private::route(rows, #indices)),)* };
                let mut cells = ::wasmill_sdk::__private::Reader::new(raw.cells());
                match input {
                    #(#arms)*
                    _ => ::std::result::Result::Err(::wasmill_sdk::Error::fatal(
                        "the host named an input that this plugin does not have",
                    )),
                }
            }
        }

        // Natively nothing but tests calls the plugin: this says that its code is wanted all the same.
        #[cfg(not(target_arch = "wasm32"))]
        const _: fn() -> ::std::string::String = ::wasmill_sdk::__private::describe::<Plugin>;

        #[cfg(target_arch = "wasm32")]
        ::wasmill_sdk::__export_plugin!(Plugin);
    }
}
