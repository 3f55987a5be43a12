//! Lists, sets and maps as column types: `Vec`, `BTreeSet`, `BTreeMap`, slices. A count, then cells; anything
//! left over, or a count that the bytes do not hold, is no value of the type.

use std::collections::{BTreeMap, BTreeSet};

use crate::cell::{Cell, Reader, length, put_code, put_nested};
use crate::types::{Column, Field, Typed};

fn wrapped(out: &mut String, name: &str, inside: fn(&mut String)) {
    out.push_str(name);
    out.push('<');
    inside(out);
    out.push('>');
}

/// One item of a list, set or map.
fn item<'a, T: Field<'a>>(reader: &mut Reader<'a>) -> Option<T> {
    match reader.cell()? {
        Cell::Value(value) => T::from_value(value),
        Cell::Absent(absent) => T::from_absent(absent),
    }
}

/// Reads a count and that many items, each of which takes at least four bytes.
fn items<'a, T, C: FromIterator<T>>(
    value: &'a [u8],
    next: impl Fn(&mut Reader<'a>) -> Option<T>,
) -> Option<C> {
    let mut reader = Reader::new(value);
    let count = usize::try_from(reader.int()?).ok()?;
    let all = (0..count)
        .map(|_| next(&mut reader))
        .collect::<Option<C>>()?;
    reader.rest().is_empty().then_some(all)
}

fn put_items<T>(
    out: &mut Vec<u8>,
    all: impl ExactSizeIterator<Item = T>,
    put: impl Fn(T, &mut Vec<u8>),
) {
    put_nested(out, |out| {
        put_code(out, length(all.len()));
        for item in all {
            put(item, out);
        }
    });
}

impl<T: Typed> Typed for [T] {
    fn type_name(out: &mut String) {
        wrapped(out, "list", T::type_name);
    }
}

impl<T: Typed> Typed for Vec<T> {
    fn type_name(out: &mut String) {
        wrapped(out, "list", T::type_name);
    }
}

impl<'a, T: Field<'a>> Field<'a> for Vec<T> {
    fn from_value(value: &'a [u8]) -> Option<Self> {
        items(value, item)
    }
}

impl<T: Column> Column for [T] {
    fn put(&self, out: &mut Vec<u8>) {
        put_items(out, self.iter(), T::put);
    }
}

impl<T: Column> Column for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.as_slice().put(out);
    }
}

impl<T: Typed> Typed for BTreeSet<T> {
    fn type_name(out: &mut String) {
        wrapped(out, "set", T::type_name);
    }
}

impl<'a, T: Field<'a> + Ord> Field<'a> for BTreeSet<T> {
    fn from_value(value: &'a [u8]) -> Option<Self> {
        items(value, item)
    }
}

impl<T: Column> Column for BTreeSet<T> {
    fn put(&self, out: &mut Vec<u8>) {
        put_items(out, self.iter(), T::put);
    }
}

impl<K: Typed, V: Typed> Typed for BTreeMap<K, V> {
    fn type_name(out: &mut String) {
        wrapped(out, "map", |out| {
            K::type_name(out);
            out.push(',');
            V::type_name(out);
        });
    }
}

impl<'a, K: Field<'a> + Ord, V: Field<'a>> Field<'a> for BTreeMap<K, V> {
    fn from_value(value: &'a [u8]) -> Option<Self> {
        items(value, |reader| Some((item(reader)?, item(reader)?)))
    }
}

impl<K: Column, V: Column> Column for BTreeMap<K, V> {
    fn put(&self, out: &mut Vec<u8>) {
        put_items(out, self.iter(), |(key, value), out| {
            key.put(out);
            value.put(out);
        });
    }
}
