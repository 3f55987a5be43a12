//! Tests of the cell check: every type round trips, every mutation is refused or a value, nothing panics.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use proptest::prelude::*;

use super::*;
use crate::record::cells::{
    Items, begin, get_decimal, get_float64, get_int64, get_text, put, put_boolean, put_count,
    put_decimal, put_float32, put_float64, put_int16, put_int32, put_int64, put_null, put_text,
    put_unset, seal,
};

fn scalar_type() -> impl Strategy<Value = Type> {
    prop_oneof![
        Just(Type::Boolean),
        Just(Type::Int16),
        Just(Type::Int32),
        Just(Type::Int64),
        Just(Type::Float32),
        Just(Type::Float64),
        Just(Type::Text),
        Just(Type::Json),
        Just(Type::Bytes),
        Just(Type::Uuid),
        Just(Type::Timestamp),
        Just(Type::Date),
        Just(Type::Time),
        (1_u8..=38)
            .prop_flat_map(|precision| (Just(precision), 0..=precision))
            .prop_map(|(precision, scale)| Type::Decimal { precision, scale }),
    ]
}

fn any_type() -> impl Strategy<Value = Type> {
    let nested = scalar_type().prop_recursive(3, 8, 2, |inner| {
        prop_oneof![
            inner.clone().prop_map(|item| Type::List(Box::new(item))),
            inner.clone().prop_map(|item| Type::Set(Box::new(item))),
            (inner.clone(), inner)
                .prop_map(|(key, value)| Type::Map(Box::new(key), Box::new(value))),
        ]
    });
    prop_oneof![9 => nested, 1 => Just(Type::Headers)]
}

/// Appends a value cell of `ty`, made from `seed`; different seeds below 2 give different values.
fn put_any(ty: &Type, seed: i64, out: &mut Vec<u8>) {
    let wrap = |max: i64| seed.rem_euclid(max.saturating_add(1));
    match ty {
        Type::Boolean => put_boolean(out, seed & 1 == 1),
        Type::Int16 => put_int16(out, i16::try_from(wrap(i16::MAX.into())).unwrap()),
        Type::Int32 => put_int32(out, i32::try_from(wrap(i32::MAX.into())).unwrap()),
        Type::Date => put_int32(out, i32::try_from(wrap(MAX_DATE.into())).unwrap()),
        Type::Int64 => put_int64(out, seed),
        Type::Timestamp => put_int64(out, seed.max(MIN_TIMESTAMP)),
        Type::Time => put_int64(out, wrap(MAX_TIME)),
        Type::Float32 => put_float32(
            out,
            f32::from_bits(u32::try_from(seed & 0xffff_ffff).unwrap()),
        ),
        Type::Float64 => put_float64(out, f64::from_bits(seed.cast_unsigned())),
        Type::Text => put_text(out, &format!("text é {seed}")),
        Type::Json => put_text(out, &format!("{{\"a\": [{seed}]}}")),
        Type::Bytes => put(
            out,
            &seed.to_be_bytes()[..usize::try_from(wrap(8)).unwrap()],
        ),
        Type::Uuid => put(out, &i128::from(seed).to_be_bytes()),
        Type::Decimal { precision, scale } => put_decimal(
            out,
            i128::from(seed) % 10_i128.pow(u32::from(*precision)),
            *scale,
        ),
        Type::List(item) => {
            let at = begin(out);
            put_count(out, 3);
            put_any(item, seed, out);
            put_null(out);
            put_any(item, seed, out);
            seal(out, at);
        }
        Type::Set(item) => {
            let at = begin(out);
            put_count(out, 1);
            put_any(item, seed, out);
            seal(out, at);
        }
        Type::Map(key, value) => {
            let at = begin(out);
            put_count(out, 1);
            put_any(key, seed, out);
            put_any(value, seed, out);
            seal(out, at);
        }
        Type::Headers => {
            let at = begin(out);
            put_count(out, 2);
            for value in [Some(b"v"), None] {
                put_text(out, "name");
                match value {
                    Some(value) => put(out, value),
                    None => put_null(out),
                }
            }
            seal(out, at);
        }
    }
}

fn value(ty: &Type, seed: i64) -> Vec<u8> {
    let mut cell = Vec::new();
    put_any(ty, seed, &mut cell);
    cell.split_off(4)
}

fn counted(count: i32, cells: &[u8]) -> Vec<u8> {
    [&count.to_be_bytes()[..], cells].concat()
}

fn ty(text: &str) -> Type {
    text.parse().unwrap()
}

#[test]
fn limits_of_both_databases_are_kept() {
    let long = |text, value: i64| check(&ty(text), &value.to_be_bytes());
    assert!(long("timestamp", MIN_TIMESTAMP).is_ok() && long("timestamp", i64::MAX).is_ok());
    assert!(long("timestamp", MIN_TIMESTAMP - 1).is_err());
    assert!(long("time", 0).is_ok() && long("time", MAX_TIME).is_ok());
    assert!(long("time", -1).is_err() && long("time", MAX_TIME + 1).is_err());
    let date = |value: i32| check(&Type::Date, &value.to_be_bytes());
    assert!(date(MIN_DATE).is_ok() && date(MAX_DATE).is_ok());
    assert!(date(MIN_DATE - 1).is_err() && date(MAX_DATE + 1).is_err());
}

#[test]
fn decimals_fit_precision_and_scale() {
    let decimal = |scale: i32, digits: &[u8]| check(&ty("decimal(4,2)"), &counted(scale, digits));
    assert!(decimal(2, &9999_i16.to_be_bytes()).is_ok());
    assert!(decimal(2, &[0, 0, 0, 1]).is_ok(), "longer than needed");
    assert!(decimal(0, &[99]).is_ok(), "less scale than allowed");
    assert!(decimal(0, &[100]).is_err(), "10000 in units of 0.01");
    assert!(decimal(2, &10_000_i16.to_be_bytes()).is_err());
    assert!(decimal(3, &[1]).is_err());
    assert!(decimal(-1, &[1]).is_err());
    assert!(decimal(2, &[]).is_err());
    assert!(decimal(2, &[0; 17]).is_err());
    assert!(check(&ty("decimal(38,0)"), &counted(0, &[0x7f; 16])).is_err());
    assert!(check(&ty("decimal(4,2)"), &[0, 0]).is_err());
}

#[test]
fn nested_values_are_counted_exactly() {
    let mut one = Vec::new();
    put_int32(&mut one, 7);
    let list = ty("list<int32>");
    assert!(check(&list, &counted(1, &one)).is_ok());
    assert!(check(&list, &counted(0, &[])).is_ok());
    assert!(check(&list, &counted(2, &one)).is_err());
    assert!(check(&list, &counted(0, &one)).is_err());
    assert!(check(&list, &counted(-1, &[])).is_err());
    assert!(check(&list, &counted(i32::MAX, &one)).is_err());
    assert!(check(&list, &[0, 0]).is_err());
    let mut unset = Vec::new();
    put_unset(&mut unset);
    assert!(check(&list, &counted(1, &unset)).is_err());
    assert!(check(&list, &counted(1, &(-3_i32).to_be_bytes())).is_err());
    let mut null = Vec::new();
    put_null(&mut null);
    assert!(check(&list, &counted(1, &null)).is_ok());
    assert!(check(&ty("set<int32>"), &counted(1, &null)).is_err());
    let pair = [null.clone(), one.clone()].concat();
    assert!(check(&ty("map<int32,int32>"), &counted(1, &pair)).is_err());
    let pair = [one, null].concat();
    assert!(check(&ty("map<int32,int32>"), &counted(1, &pair)).is_ok());
}

#[test]
fn repeats_in_sets_and_map_keys_are_refused_at_every_size() {
    for size in [2_i32, 16, 17, 300] {
        let mut cells = Vec::new();
        let mut pairs = Vec::new();
        for n in 0..size {
            put_int32(&mut cells, n);
            put_int32(&mut pairs, n);
            put_int32(&mut pairs, 1);
        }
        let (set, map) = (ty("set<int32>"), ty("map<int32,int32>"));
        assert!(check(&set, &counted(size, &cells)).is_ok());
        assert!(check(&map, &counted(size, &pairs)).is_ok());
        put_int32(&mut cells, size / 2);
        put_int32(&mut pairs, size / 2);
        put_int32(&mut pairs, 2);
        assert!(check(&set, &counted(size + 1, &cells)).is_err(), "{size}");
        assert!(check(&map, &counted(size + 1, &pairs)).is_err(), "{size}");
        assert!(check(&ty("list<int32>"), &counted(size + 1, &cells)).is_ok());
    }
}

#[test]
fn text_json_and_booleans_are_checked() {
    assert!(check(&Type::Text, b"\xff").is_err());
    assert!(check(&Type::Json, b"{\"a\":1} ").is_ok());
    assert!(check(&Type::Json, b"{\"a\":1").is_err());
    assert!(check(&Type::Json, b"").is_err());
    assert!(check(&Type::Boolean, &[2]).is_err());
    assert_eq!(
        check(&Type::Int32, &[1]).unwrap_err().to_string(),
        "a value of 1 bytes does not fit type int32"
    );
}

#[test]
fn typed_readers_return_what_was_written() {
    assert_eq!(get_int64(&value(&Type::Int64, -5)), -5);
    assert_eq!(get_float64(&value(&Type::Float64, 0)), 0.0);
    assert_eq!(get_text(&value(&Type::Text, 3)), "text é 3");
    assert_eq!(get_decimal(&value(&ty("decimal(9,3)"), -1234)), (-1234, 3));
    let list = value(&ty("list<int64>"), 9);
    let items: Vec<_> = Items::new(&list).collect();
    assert_eq!(items.len(), 3);
    assert_eq!(items[1], Cell::Null);
    assert_eq!(items[0], Cell::Value(&9_i64.to_be_bytes()));
}

proptest! {
    #[test]
    fn every_type_round_trips(ty in any_type(), seed: i64) {
        let value = value(&ty, seed);
        prop_assert_eq!(check(&ty, &value), Ok(()));
    }

    #[test]
    fn a_truncated_or_longer_value_of_counted_type_is_refused(
        ty in any_type(), seed: i64, cut in 1_usize..40,
    ) {
        let whole = value(&ty, seed);
        let longer = [&whole[..], &[0]].concat();
        let shorter = &whole[..whole.len().saturating_sub(cut)];
        match ty {
            Type::Text | Type::Json | Type::Bytes => {}
            // One more byte can be a longer form of another number that fits.
            Type::Decimal { .. } => {}
            _ => {
                prop_assert!(check(&ty, &longer).is_err());
                prop_assert!(check(&ty, shorter).is_err());
            }
        }
    }

    #[test]
    fn a_mutated_value_never_panics(
        ty in any_type(), seed: i64, at: prop::sample::Index, byte: u8,
    ) {
        let mut bytes = value(&ty, seed);
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        // Whatever the verdict, an accepted value reads to its end.
        if check(&ty, &bytes).is_ok() && matches!(ty, Type::List(_) | Type::Set(_) | Type::Map(..) | Type::Headers) {
            let count = Items::new(&bytes).count();
            let said = i32::from_be_bytes(bytes[..4].try_into().unwrap());
            let cells = if matches!(ty, Type::List(_) | Type::Set(_)) { said } else { said * 2 };
            prop_assert_eq!(i32::try_from(count).unwrap(), cells);
        }
    }

    #[test]
    fn random_bytes_never_panic(ty in any_type(), bytes: Vec<u8>) {
        let first = check(&ty, &bytes);
        prop_assert_eq!(first, check(&ty, &bytes));
    }
}
