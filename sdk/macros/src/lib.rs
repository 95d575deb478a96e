//! The attributes of the crate `archean`; they are documented there.

use proc_macro::TokenStream;
use proc_macro2::TokenStream as Tokens;
use quote::quote;
use syn::{Error, Item, ItemFn, parse_macro_input, spanned::Spanned};

/// See `archean::main`.
#[proc_macro_attribute]
pub fn main(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let function = parse_macro_input!(item as ItemFn);
    expand(no_arguments(attribute.into()).and_then(|()| expand_main(&function)))
}

/// See `archean::test`.
#[proc_macro_attribute]
pub fn test(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let function = parse_macro_input!(item as ItemFn);
    expand(no_arguments(attribute.into()).and_then(|()| expand_test(&function)))
}

/// See `archean::data`.
#[proc_macro_attribute]
pub fn data(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let item = parse_macro_input!(item as Item);
    expand(no_arguments(attribute.into()).and_then(|()| expand_data(&item)))
}

fn expand(expanded: Result<Tokens, Error>) -> TokenStream {
    expanded.unwrap_or_else(Error::into_compile_error).into()
}

fn no_arguments(attribute: Tokens) -> Result<(), Error> {
    if attribute.is_empty() {
        Ok(())
    } else {
        Err(Error::new(attribute.span(), "this attribute takes no arguments"))
    }
}

fn no_parameters(function: &ItemFn, what: &str) -> Result<(), Error> {
    let signature = &function.sig;
    if !signature.inputs.is_empty() {
        return Err(Error::new(signature.inputs.span(), format!("{what} takes no parameters")));
    }
    if !signature.generics.params.is_empty() {
        return Err(Error::new(signature.generics.span(), format!("{what} can't be generic")));
    }
    Ok(())
}

fn expand_main(function: &ItemFn) -> Result<Tokens, Error> {
    no_parameters(function, "`main`")?;
    if function.sig.ident != "main" {
        return Err(Error::new(function.sig.ident.span(), "`#[archean::main]` belongs on `fn main`"));
    }
    let ItemFn { attrs, sig, block, .. } = function;
    let output = &sig.output;
    let body = if sig.asyncness.is_some() {
        quote! { ::archean::block_on(async move #block) }
    } else {
        quote! { #block }
    };
    Ok(quote! {
        #(#attrs)*
        fn main() #output {
            ::archean::init();
            #body
        }
    })
}

fn expand_test(function: &ItemFn) -> Result<Tokens, Error> {
    no_parameters(function, "a test")?;
    let ItemFn { attrs, sig, block, vis } = function;
    let (name, output) = (&sig.ident, &sig.output);
    let body = if sig.asyncness.is_some() {
        quote! { ::archean::block_on(async move #block) }
    } else {
        quote! { #block }
    };
    Ok(quote! {
        #(#attrs)*
        #[::core::prelude::v1::test]
        #vis fn #name() {
            fn body() #output {
                #body
            }
            ::archean::__private::test(concat!(module_path!(), "::", stringify!(#name)), body);
        }
    })
}

fn expand_data(item: &Item) -> Result<Tokens, Error> {
    match item {
        Item::Struct(_) | Item::Enum(_) => Ok(quote! {
            #[derive(::archean::rkyv::Archive, ::archean::rkyv::Serialize, ::archean::rkyv::Deserialize)]
            #[rkyv(crate = ::archean::rkyv)]
            #item
        }),
        other => {
            let span = match other {
                Item::Union(union) => union.ident.span(),
                other => other.span(),
            };
            Err(Error::new(span, "`#[archean::data]` belongs on a struct or an enum"))
        }
    }
}
