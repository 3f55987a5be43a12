//! Which Rust types are which column types: [`Typed`] names them, [`Field`] reads them from cells, [`Column`]
//! writes them. Implementations here are the plain ones; `collections`, `values` and `decimal` hold the others.

use std::borrow::Cow;

use crate::cell::{Cell, NULL, Reader, put_bytes, put_code};
use crate::error::{Error, reject};

/// Why a field has no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    /// It is explicitly null (or the record is a tombstone).
    Null,
    /// Its path is not there at all.
    Unset,
}

/// A Rust type that is a column type.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a Wasmill type",
    label = "no column type matches this",
    note = "use bool, i16, i32, i64, f32, f64, &str, String, &[u8], Vec<u8>, Json, Uuid, Timestamp, Date, Time, \
            Decimal<P, S>, or Option, Vec, BTreeSet, BTreeMap of these"
)]
pub trait Typed {
    /// Whether null is a value of it.
    const NULLABLE: bool = false;

    /// Appends the type's name as manifests and `describe` write it.
    fn type_name(out: &mut String);
}

/// A type that a field of `#[derive(Fields)]` can have; `'a` is how long the batch lives.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a field",
    label = "not a type that a field can be read as",
    note = "use bool, i16, i32, i64, f32, f64, &str, String, &[u8], Vec<u8>, Json, Uuid, Timestamp, Date, Time, \
            Decimal<P, S>, or Option, Vec, BTreeSet, BTreeMap of these"
)]
pub trait Field<'a>: Typed + Sized {
    /// Reads a value's bytes; `None` when they are not of the type (the record is then rejected).
    fn from_value(value: &'a [u8]) -> Option<Self>;

    /// The value where there is none; `None` rejects the record.
    #[inline]
    fn from_absent(_absent: Absent) -> Option<Self> {
        None
    }
}

/// A type that a column of `#[derive(Row)]` can have.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a column",
    label = "not a type that can be written to a column",
    note = "use bool, i16, i32, i64, f32, f64, &str, String, &[u8], Vec<u8>, Json, Uuid, Timestamp, Date, Time, \
            Decimal<P, S>, Update<T>, or Option, Vec, BTreeSet, BTreeMap of these"
)]
pub trait Column: Typed {
    /// Appends exactly one cell.
    fn put(&self, out: &mut Vec<u8>);
}

/// Reads the field `name` from the next cell.
///
/// # Errors
/// A rejection: `field-missing` for no value where there must be one, `field-type` for one that does not fit.
#[inline]
pub fn read<'a, T: Field<'a>>(reader: &mut Reader<'a>, name: &'static str) -> Result<T, Error> {
    let value = match reader.cell() {
        Some(Cell::Value(value)) => T::from_value(value),
        Some(Cell::Absent(absent)) => {
            return T::from_absent(absent).ok_or_else(|| missing(name));
        }
        None => None,
    };
    value.ok_or_else(|| unfit::<T>(name))
}

#[cold]
fn missing(name: &str) -> Error {
    reject(
        "field-missing",
        format_args!("field {name:?} has no value, and its type is not an Option"),
    )
}

#[cold]
fn unfit<T: Typed>(name: &str) -> Error {
    let mut ty = String::new();
    T::type_name(&mut ty);
    reject("field-type", format_args!("field {name:?} holds no {ty}"))
}

/// Appends `column` as one cell.
#[inline]
pub fn put<T: Column>(column: &T, out: &mut Vec<u8>) {
    column.put(out);
}

macro_rules! number {
    ($($rust:ty, $name:literal, $size:literal;)*) => {$(
        impl Typed for $rust {
            fn type_name(out: &mut String) {
                out.push_str($name);
            }
        }
        impl Field<'_> for $rust {
            #[inline]
            fn from_value(value: &[u8]) -> Option<Self> {
                value.try_into().ok().map(<$rust>::from_be_bytes)
            }
        }
        impl Column for $rust {
            #[inline]
            fn put(&self, out: &mut Vec<u8>) {
                let mut cell = [0; 4 + $size];
                cell[3] = $size;
                cell[4..].copy_from_slice(&self.to_be_bytes());
                out.extend_from_slice(&cell);
            }
        }
    )*};
}

number! {
    i16, "int16", 2;
    i32, "int32", 4;
    i64, "int64", 8;
    f32, "float32", 4;
    f64, "float64", 8;
}

impl Typed for bool {
    fn type_name(out: &mut String) {
        out.push_str("boolean");
    }
}

impl Field<'_> for bool {
    #[inline]
    fn from_value(value: &[u8]) -> Option<Self> {
        match value {
            [0] => Some(false),
            [1] => Some(true),
            _ => None,
        }
    }
}

impl Column for bool {
    #[inline]
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[0, 0, 0, 1, u8::from(*self)]);
    }
}

impl<T: Typed + ?Sized> Typed for &T {
    const NULLABLE: bool = T::NULLABLE;

    fn type_name(out: &mut String) {
        T::type_name(out);
    }
}

impl<T: Column + ?Sized> Column for &T {
    #[inline]
    fn put(&self, out: &mut Vec<u8>) {
        T::put(self, out);
    }
}

/// Text of a cell. In a component the host has already checked that it is UTF-8.
#[inline]
pub(crate) fn text(value: &[u8]) -> Option<&str> {
    #[cfg(target_arch = "wasm32")]
    {
        #[expect(
            unsafe_code,
            reason = "a second UTF-8 check would cost as much as the rest of the call"
        )]
        // SAFETY: cells of type text and json are UTF-8 by contract (wit/since-v0.1/types.wit); the host, which
        // wrote them and owns this memory, checks them before the call.
        Some(unsafe { std::str::from_utf8_unchecked(value) })
    }
    #[cfg(not(target_arch = "wasm32"))]
    {
        std::str::from_utf8(value).ok()
    }
}

macro_rules! named {
    ($name:literal: $([$($generics:tt)*] $rust:ty),*) => {$(
        impl<$($generics)*> Typed for $rust {
            fn type_name(out: &mut String) {
                out.push_str($name);
            }
        }
    )*};
}

named!("text": [] str, [] String, ['s] Cow<'s, str>);
named!("bytes": [] [u8], [] Vec<u8>, ['s] Cow<'s, [u8]>);

impl<'a> Field<'a> for &'a str {
    #[inline]
    fn from_value(value: &'a [u8]) -> Option<Self> {
        text(value)
    }
}

impl<'a> Field<'a> for Cow<'a, str> {
    #[inline]
    fn from_value(value: &'a [u8]) -> Option<Self> {
        text(value).map(Cow::Borrowed)
    }
}

impl Field<'_> for String {
    fn from_value(value: &[u8]) -> Option<Self> {
        text(value).map(str::to_owned)
    }
}

impl<'a> Field<'a> for &'a [u8] {
    #[inline]
    fn from_value(value: &'a [u8]) -> Option<Self> {
        Some(value)
    }
}

impl<'a> Field<'a> for Cow<'a, [u8]> {
    #[inline]
    fn from_value(value: &'a [u8]) -> Option<Self> {
        Some(Cow::Borrowed(value))
    }
}

impl Field<'_> for Vec<u8> {
    fn from_value(value: &[u8]) -> Option<Self> {
        Some(value.to_vec())
    }
}

macro_rules! bytes_column {
    ($([$($generics:tt)*] $rust:ty),*) => {$(
        impl<$($generics)*> Column for $rust {
            #[inline]
            fn put(&self, out: &mut Vec<u8>) {
                put_bytes(out, self.as_ref());
            }
        }
    )*};
}

bytes_column!([] [u8], [] Vec<u8>, ['s] Cow<'s, [u8]>);

impl Column for str {
    #[inline]
    fn put(&self, out: &mut Vec<u8>) {
        put_bytes(out, self.as_bytes());
    }
}

impl Column for String {
    #[inline]
    fn put(&self, out: &mut Vec<u8>) {
        put_bytes(out, self.as_bytes());
    }
}

impl Column for Cow<'_, str> {
    #[inline]
    fn put(&self, out: &mut Vec<u8>) {
        put_bytes(out, self.as_bytes());
    }
}

impl<T: Typed> Typed for Option<T> {
    const NULLABLE: bool = true;

    fn type_name(out: &mut String) {
        T::type_name(out);
    }
}

impl<'a, T: Field<'a>> Field<'a> for Option<T> {
    #[inline]
    fn from_value(value: &'a [u8]) -> Option<Self> {
        T::from_value(value).map(Some)
    }

    #[inline]
    fn from_absent(absent: Absent) -> Option<Self> {
        Some(T::from_absent(absent))
    }
}

impl<T: Column> Column for Option<T> {
    #[inline]
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Some(value) => value.put(out),
            None => put_code(out, NULL),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    fn name<T: Typed>() -> String {
        let mut out = String::new();
        T::type_name(&mut out);
        out
    }

    fn round_trip<T>(value: T)
    where
        T: for<'a> Field<'a> + Column + PartialEq + std::fmt::Debug,
    {
        let mut out = Vec::new();
        value.put(&mut out);
        assert_eq!(read::<T>(&mut Reader::new(&out), "x"), Ok(value));
    }

    #[test]
    fn values_round_trip_through_cells() {
        round_trip(true);
        round_trip(-2_i16);
        round_trip(i32::MIN);
        round_trip(i64::MAX);
        round_trip(1.5_f32);
        round_trip(-0.25_f64);
        round_trip("naïve".to_owned());
        round_trip(vec![0_u8, 255]);
        round_trip(Some(7));
        round_trip(None::<i32>);
        round_trip(vec![Some("a".to_owned()), None]);
        round_trip(BTreeMap::from([
            ("a".to_owned(), vec![1_i64]),
            ("b".to_owned(), vec![]),
        ]));
        round_trip(BTreeSet::from([1_i16, 2]));
    }

    #[test]
    fn names_are_those_of_the_interface() {
        assert_eq!(name::<Option<&str>>(), "text");
        assert_eq!(name::<&[u8]>(), "bytes");
        assert_eq!(
            name::<BTreeMap<String, Vec<Option<f64>>>>(),
            "map<text,list<float64>>"
        );
        assert_eq!([Option::<i16>::NULLABLE, i16::NULLABLE], [true, false]);
    }

    #[test]
    fn cells_that_do_not_fit_reject_the_record() {
        let code = |error| match error {
            Error::Data { code, .. } => code.into_owned(),
            Error::Fatal(reason) => reason,
        };
        let read_i64 = |bytes: &[u8]| read::<i64>(&mut Reader::new(bytes), "n").map_err(code);
        assert_eq!(
            read_i64(&[255, 255, 255, 255]),
            Err("field-missing".to_owned())
        );
        assert_eq!(
            read_i64(&[255, 255, 255, 254]),
            Err("field-missing".to_owned())
        );
        assert_eq!(read_i64(&[0, 0, 0, 1, 9]), Err("field-type".to_owned()));
        assert_eq!(read_i64(&[0, 0, 0, 9, 9]), Err("field-type".to_owned()));
        assert_eq!(read_i64(&[]), Err("field-type".to_owned()));
        assert_eq!(Vec::<i64>::from_value(&[127, 255, 255, 255]), None);
    }
}
