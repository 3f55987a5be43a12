//! Figures, not gates: run with `--ignored --nocapture`.

use std::time::Instant;

use wasmill::plugin::{Engine, EngineOptions, Plugin as _, PluginSettings};

use crate::made::{Host, carrying, guest, ordinary, resident, tangled};

#[test]
#[ignore = "a measurement, not a check"]
fn what_checks_cost() {
    let plugin = guest("identity");
    for (name, component) in [
        ("identity".to_owned(), plugin.clone()),
        (
            "ordinary 4 MiB".to_owned(),
            carrying(&plugin, &ordinary(8_000, 20)),
        ),
        (
            "ordinary 31 MiB".to_owned(),
            carrying(&plugin, &ordinary(62_000, 20)),
        ),
        (
            "ordinary 31 MiB, long functions".to_owned(),
            carrying(&plugin, &ordinary(620, 2000)),
        ),
        (
            "tangled 100 × 1,000".to_owned(),
            carrying(&plugin, &tangled(100, 1_000)),
        ),
        (
            "tangled 1,000 × 50,000".to_owned(),
            carrying(&plugin, &tangled(1_000, 50_000)),
        ),
    ] {
        let host = Host::new().with(6 << 30, 60, 60);
        let size = component.len();
        let start = Instant::now();
        let result = host.check(&component);
        let took = start.elapsed();
        match result {
            Ok(report) => eprintln!(
                "{name}: {size} bytes, {took:?}, compiled in {} ms, peak {} MiB, native {} bytes",
                report.compile_ms,
                report.peak_memory.unwrap() >> 20,
                std::fs::metadata(&host.entries()[0]).unwrap().len(),
            ),
            Err(error) => eprintln!("{name}: {size} bytes, {took:?}, {error}"),
        }
    }
}

/// A restart with 50 cached plugins: time to load each, and what each holds while it is idle with one live
/// instance.
#[test]
#[ignore = "a measurement, not a check"]
fn what_idle_plugins_cost() {
    let host = Host::new();
    let cache = host.checker.cache.as_deref().unwrap();
    let plugin = guest("filter-project");
    let copies: Vec<Vec<u8>> = (0..50_u8)
        .map(|number| {
            let section = wasm_encoder::CustomSection {
                name: "copy".into(),
                data: vec![number].into(),
            };
            let mut copy = plugin.clone();
            wasm_encoder::ComponentSection::append_to_component(&section, &mut copy);
            copy
        })
        .collect();
    {
        let engine = Engine::new(EngineOptions::default()).unwrap();
        for copy in &copies {
            assert!(engine.load(copy, Some(cache)).unwrap().cached());
        }
    }
    let engine = Engine::new(EngineOptions::default()).unwrap();
    let before = resident();
    let start = Instant::now();
    let loaded: Vec<_> = copies
        .iter()
        .map(|copy| {
            let compiled = engine.load(copy, Some(cache)).unwrap();
            assert!(compiled.from_cache());
            compiled
        })
        .collect();
    let took = start.elapsed();
    let grown = resident().saturating_sub(before);
    eprintln!(
        "50 plugins of {} bytes: {:?} each to load, {} KiB each while idle",
        plugin.len(),
        took / 50,
        grown / 50 / 1024
    );
    let start = Instant::now();
    for compiled in &loaded {
        compiled.describe().unwrap();
    }
    eprintln!("describe: {:?} each", start.elapsed() / 50);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let manifest = wasmill::manifest::extract(&plugin)
        .unwrap()
        .check()
        .unwrap();
    let mut setup = Vec::new();
    wasmill::record::cells::put(&mut setup, b"p");
    wasmill::record::cells::put(&mut setup, b"info");
    let instances: Vec<_> = loaded
        .into_iter()
        .map(|compiled| {
            let plugin = compiled.into_plugin(PluginSettings::of(&manifest, "p", setup.clone()));
            let instance = runtime.block_on(plugin.instantiate(1)).unwrap();
            (plugin, instance)
        })
        .collect();
    let grown = resident().saturating_sub(before);
    eprintln!("with one instance each: {} KiB each", grown / 50 / 1024);
    drop(instances);
}
