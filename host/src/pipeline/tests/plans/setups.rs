//! The configuration a plugin is given, as cells in the order it was described in.

use std::collections::BTreeMap;

use super::super::world::append_route;
use super::manifest;
use crate::error::{Blame, Error};
use crate::manifest::ConfigItem;
use crate::pipeline::setup;
use crate::record::Type;

fn item(name: &str, ty: Type, default: Option<serde_json::Value>) -> ConfigItem {
    ConfigItem {
        name: name.to_owned(),
        ty,
        default,
        secret: name == "token",
    }
}

fn encode(values: &str) -> Result<Vec<u8>, Error> {
    let mut manifest = manifest(vec![append_route()]);
    manifest.config = vec![
        item("limit", Type::Int64, Some(7.into())),
        item("ratio", Type::Float64, Some(0.5.into())),
        item("strict", Type::Boolean, Some(true.into())),
        item("token", Type::Text, None),
    ];
    let values: BTreeMap<String, toml::Value> = toml::from_str(values).unwrap();
    setup::encode("web", "info", &manifest, &values)
}

#[test]
fn setup_cells_come_in_describe_order_with_defaults() {
    let setup = encode("token = \"t\"\nratio = 2").unwrap();
    let expected = [
        &[0, 0, 0, 3][..],
        b"web",
        &[0, 0, 0, 4],
        b"info",
        &[0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 7],
        &[0, 0, 0, 8],
        &2.0_f64.to_be_bytes(),
        &[0, 0, 0, 1, 1],
        &[0, 0, 0, 1],
        b"t",
    ]
    .concat();
    assert_eq!(setup, expected);
}

#[test]
fn setup_errors_name_the_value_and_never_show_a_secret() {
    for (values, expected, hint) in [
        (
            "",
            "config.token (text) is not set",
            Some("set config.token in [pipeline.web]"),
        ),
        (
            "token = \"t\"\nlimits = 3",
            "config.limits is no configuration value of plugin \"clicks\"",
            Some("it has: limit, ratio, strict, token"),
        ),
        (
            "token = \"t\"\nlimit = \"3\"",
            "config.limit is a int64, found a string",
            None,
        ),
        (
            "token = \"t\"\nlimit = 1.5",
            "config.limit is a int64, found a number",
            None,
        ),
        (
            "token = \"t\"\nratio = nan",
            "config.ratio is a float64, found nothing",
            None,
        ),
        (
            "token = \"t\"\nstrict = 1",
            "config.strict is a boolean, found a number",
            None,
        ),
        (
            "token = 4711",
            "config.token is a text, found a number",
            None,
        ),
    ] {
        let error = encode(values).unwrap_err();
        assert_eq!(error.blame(), Blame::Config);
        assert_eq!(error.what(), "configure pipeline \"web\"");
        assert_eq!((error.detail(), error.hint_text()), (expected, hint));
    }
}
