//! The engine against guests that behave and guests that do not, one test for each way to go wrong.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::{Duration, Instant};

use super::guests::{self, DESCRIPTION, Guest, component, running};
use super::*;
use crate::error::Blame;
use crate::manifest::Limits;
use crate::record::Record;

fn engine() -> Engine {
    Engine::new(EngineOptions {
        allocation: Allocation::Pooled { instances: 16 },
    })
    .unwrap()
}

fn settings(limits: Limits) -> PluginSettings {
    PluginSettings {
        pipeline: "p".to_owned(),
        plugin: "guest@0.1.0".to_owned(),
        log_level: LogLevel::Info,
        setup: Vec::new(),
        limits,
        inputs: vec![InputSettings::default()],
    }
}

fn plugin_with(bytes: &[u8], limits: Limits) -> std::sync::Arc<GuestPlugin> {
    let compiled = engine().load(bytes, None).unwrap();
    compiled.into_plugin(settings(limits))
}

fn plugin(bytes: &[u8]) -> std::sync::Arc<GuestPlugin> {
    plugin_with(bytes, Limits::default())
}

fn records(count: u32) -> (Batch, Fields) {
    let (mut batch, mut fields) = (Batch::new(3, 0), Fields::default());
    for index in 0..count {
        batch.push(Record {
            key: Some(b"k"),
            value: Some(b"v"),
            timestamp: 7,
            offset: i64::from(index),
            headers: b"",
            marks: 0,
        });
        crate::record::cells::put(&mut fields.cells, format!("value {index}").as_bytes());
        fields.ends.push(u32::try_from(fields.cells.len()).unwrap());
        fields.kept.push(index);
    }
    (batch, fields)
}

async fn run(instance: &mut dyn Instance, range: Range<usize>) -> Result<Output, RunFailure> {
    let (batch, fields) = records(u32::try_from(range.end).unwrap());
    let input = GuestBatch {
        input: 0,
        batch: &batch,
        fields: &fields,
        range,
    };
    instance.run(input).await
}

/// Runs a body over three records, once.
async fn run_body(body: &str, limits: Limits) -> Result<Output, RunFailure> {
    let plugin = plugin_with(&running(body), limits);
    let mut instance = plugin.instantiate(1).await?;
    let result = run(instance.as_mut(), 0..3).await;
    if !matches!(result, Ok(_) | Err(RunFailure::Fatal(_))) {
        let again = run(instance.as_mut(), 0..3).await;
        assert!(
            matches!(&again, Err(RunFailure::Fatal(error)) if error.blame() == Blame::Bug),
            "a failed instance was used again: {again:?}"
        );
    }
    result
}

#[tokio::test]
async fn rows_come_back_as_the_guest_said_them_and_the_instance_is_reused() {
    let plugin = plugin(&component(&Guest::default()));
    let mut instance = plugin.instantiate(1).await.unwrap();
    for _ in 0..100 {
        let output = run(instance.as_mut(), 1..3).await.unwrap();
        assert_eq!(output.sources, [0, 1]);
        assert_eq!(output.cells, b"\0\0\0\x07value 1\0\0\0\x07value 2");
        assert_eq!(output.ends, [11, 22]);
        assert!(output.routes.is_empty() && output.rejects.is_empty());
    }
    assert!(!instance.outgrown());
    assert_eq!(
        run(instance.as_mut(), 0..0).await.unwrap(),
        Output::default()
    );
}

#[tokio::test]
async fn a_trap_carries_what_the_guest_said_last() {
    let failure = run_body(guests::PANIC, Limits::default())
        .await
        .unwrap_err();
    let RunFailure::Trap(error) = &failure else {
        panic!("{failure:?}");
    };
    assert!(error.detail().contains("unreachable"), "{error}");
    assert!(
        error.detail().contains("its last message: oh no: ?"),
        "{error}"
    );
    assert_eq!(error.blame(), Blame::Plugin);
}

#[tokio::test]
async fn memory_past_the_limit_is_a_limit_even_when_the_guest_makes_it_a_trap() {
    let limits = Limits {
        memory: 4 << 20,
        ..Limits::default()
    };
    let failure = run_body(guests::HOG, limits).await.unwrap_err();
    let RunFailure::Limit(error) = &failure else {
        panic!("{failure:?}");
    };
    assert!(error.detail().contains("5 MiB in all"), "{error}");
    assert!(error.hint_text().unwrap().contains("limits.memory"));
}

#[tokio::test]
async fn a_guest_that_starts_larger_than_its_limit_is_a_limit() {
    let limits = Limits {
        memory: 64 << 10,
        ..Limits::default()
    };
    let failure = run_body(guests::PASS, limits).await.unwrap_err();
    assert!(matches!(failure, RunFailure::Limit(_)), "{failure:?}");
}

#[tokio::test]
async fn a_gigabyte_of_output_is_a_limit_and_is_not_copied() {
    let limits = Limits {
        memory: 2 << 30,
        ..Limits::default()
    };
    let failure = run_body(guests::GIGABYTE, limits).await.unwrap_err();
    assert!(
        matches!(&failure, RunFailure::Limit(error) if error.detail().contains("more bytes")),
        "{failure:?}"
    );
}

#[tokio::test]
async fn output_just_past_its_limit_is_a_limit() {
    let exactly = 3 * (11 + 4 + 4);
    for (output_bytes, fits) in [(exactly, true), (exactly - 1, false)] {
        let limits = Limits {
            output_bytes,
            ..Limits::default()
        };
        let result = run_body(guests::PASS, limits).await;
        assert_eq!(result.is_ok(), fits, "{output_bytes}: {result:?}");
        assert!(fits || matches!(result, Err(RunFailure::Limit(_))));
    }
}

#[tokio::test]
async fn lists_outside_the_guests_memory_are_a_trap() {
    let failure = run_body(guests::OUTSIDE, Limits::default())
        .await
        .unwrap_err();
    assert!(
        matches!(&failure, RunFailure::Trap(error) if error.detail().contains("cannot be read")),
        "{failure:?}"
    );
}

#[tokio::test]
async fn both_refusals_of_a_batch_are_fatal_and_keep_the_instance() {
    for (case, text) in [(0, "granted lookup"), (1, "oh no")] {
        let plugin = plugin(&running(&guests::failure(case)));
        let mut instance = plugin.instantiate(1).await.unwrap();
        for _ in 0..2 {
            let failure = run(instance.as_mut(), 0..3).await.unwrap_err();
            let RunFailure::Fatal(error) = &failure else {
                panic!("{failure:?}");
            };
            assert!(error.detail().contains(text), "{error}");
            assert!(error.detail().contains("oh no: ?"), "{error}");
            assert_eq!(error.blame(), Blame::Plugin);
        }
    }
}

#[tokio::test]
async fn an_init_that_refuses_is_fatal_with_its_text() {
    let bytes = component(&Guest {
        init: "(i32.store8 (i32.const 32) (i32.const 1))
               (i32.store offset=4 (i32.const 32) (i32.const 1024))
               (i32.store offset=8 (i32.const 32) (i32.const 8))",
        ..Guest::default()
    });
    let failure = plugin(&bytes).instantiate(1).await.unwrap_err();
    assert!(
        matches!(&failure, RunFailure::Fatal(error) if error.detail() == "oh no: ?"),
        "{failure:?}"
    );
}

#[tokio::test]
async fn a_spinning_guest_yields_to_its_neighbour_until_its_time_is_up() {
    let limits = Limits {
        run_time: Duration::from_millis(300),
        ..Limits::default()
    };
    let spinning = plugin_with(&running(guests::SPIN), limits);
    let good = plugin(&component(&Guest::default()));
    let mut spinning = spinning.instantiate(1).await.unwrap();
    let mut good = good.instantiate(1).await.unwrap();
    let start = Instant::now();
    let mut calls = 0;
    let spin = run(spinning.as_mut(), 0..1);
    tokio::pin!(spin);
    let failure = loop {
        tokio::select! {
            biased; // the spinning guest first: it would starve the other if it could
            result = &mut spin => break result.unwrap_err(),
            result = run(good.as_mut(), 0..3) => { result.unwrap(); calls += 1; }
        }
    };
    assert!(matches!(failure, RunFailure::RunTime(_)), "{failure:?}");
    assert!(calls >= 10, "the neighbour ran {calls} times only");
    assert!(
        start.elapsed() >= Duration::from_millis(250),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn a_larger_factor_allows_more_time() {
    let limits = Limits {
        run_time: Duration::from_millis(50),
        ..Limits::default()
    };
    let plugin = plugin_with(&running(guests::SPIN), limits);
    let mut spent = Vec::new();
    for factor in [1, 6] {
        let mut instance = plugin.instantiate(factor).await.unwrap();
        let start = Instant::now();
        let failure = run(instance.as_mut(), 0..1).await.unwrap_err();
        assert!(matches!(failure, RunFailure::RunTime(_)), "{failure:?}");
        spent.push(start.elapsed());
    }
    assert!(spent[1] > spent[0] * 3, "{spent:?}");
}

#[tokio::test]
async fn a_start_that_spins_or_traps_fails_the_instance() {
    let limits = Limits {
        run_time: Duration::from_millis(30),
        ..Limits::default()
    };
    let spin = component(&Guest {
        init: guests::SPIN,
        ..Guest::default()
    });
    let failure = plugin_with(&spin, limits).instantiate(1).await.unwrap_err();
    assert!(matches!(failure, RunFailure::RunTime(_)), "{failure:?}");
    let trap = component(&Guest {
        init: "(unreachable)",
        ..Guest::default()
    });
    let failure = plugin_with(&trap, limits).instantiate(1).await.unwrap_err();
    assert!(matches!(failure, RunFailure::Trap(_)), "{failure:?}");
}

#[tokio::test]
async fn an_instance_that_grew_past_its_mark_says_so() {
    let body = format!("{} (drop (memory.grow (i32.const 16)))", guests::PASS);
    let limits = Limits {
        recycle_after: 3 << 20,
        ..Limits::default()
    };
    let plugin = plugin_with(&running(&body), limits);
    let mut instance = plugin.instantiate(1).await.unwrap();
    let mut grown = Vec::new();
    for _ in 0..3 {
        run(instance.as_mut(), 0..1).await.unwrap();
        grown.push(instance.outgrown());
    }
    assert_eq!(grown, [false, false, true]);
}

#[tokio::test]
async fn a_call_that_is_given_up_spoils_the_instance_but_nothing_else() {
    let plugin = plugin(&running(guests::SPIN));
    let mut instance = plugin.instantiate(1).await.unwrap();
    let call = run(instance.as_mut(), 0..1);
    assert!(
        tokio::time::timeout(Duration::from_millis(50), call)
            .await
            .is_err()
    );
    let failure = run(instance.as_mut(), 0..1).await.unwrap_err();
    assert!(matches!(failure, RunFailure::Fatal(_)), "{failure:?}");
    drop(instance);
    plugin.instantiate(1).await.unwrap();
}

#[tokio::test]
async fn a_full_pool_is_an_operators_matter() {
    let engine = Engine::new(EngineOptions {
        allocation: Allocation::Pooled { instances: 2 },
    })
    .unwrap();
    let plugin = engine
        .load(&component(&Guest::default()), None)
        .unwrap()
        .into_plugin(settings(Limits::default()));
    let held = (
        plugin.instantiate(1).await.unwrap(),
        plugin.instantiate(1).await.unwrap(),
    );
    let failure = plugin.instantiate(1).await.unwrap_err();
    assert!(
        matches!(&failure, RunFailure::Fatal(error) if error.blame() == Blame::Config),
        "{failure:?}"
    );
    drop(held);
    plugin.instantiate(1).await.unwrap();
}

#[test]
fn files_that_are_no_components_are_refused_with_what_to_do() {
    let engine = engine();
    let module = guests::module(&Guest::default());
    let whole = component(&Guest::default());
    let bare = wat::parse_str("(component)").unwrap();
    let wasi = wat::parse_str(
        r#"(component (import "wasi:clocks/monotonic-clock@0.2.0" (instance (export "now" (func (result u64))))))"#,
    )
    .unwrap();
    let wrong = wat::parse_str(
        r#"(component (import "wasmill:plugin/log@0.1.0" (instance (export "write" (func (param "level" u64)))))
             (instance $x) (export "wasmill:plugin/describe@0.1.0" (instance $x))
             (export "wasmill:plugin/transform@0.1.0" (instance $x)))"#,
    )
    .unwrap();
    for (bytes, detail) in [
        (&b"hello"[..], "not WebAssembly"),
        (b"", "not WebAssembly"),
        (&module, "core module"),
        (&whole[..whole.len() / 2], "damaged"),
        (&bare, "does not export `wasmill:plugin/describe@0.1.0`"),
        (&wasi, "wasi:clocks/monotonic-clock@0.2.0"),
        (&wrong, "types are not those of the interface"),
    ] {
        let error = engine.load(bytes, None).unwrap_err();
        assert!(error.detail().contains(detail), "{detail}: {error}");
        assert!(error.hint_text().is_some(), "{error}");
        assert_eq!(error.blame(), Blame::Plugin);
    }
}

#[test]
fn describe_returns_the_text_or_says_what_is_wrong() {
    let engine = engine();
    let describe = |body: &str| {
        let bytes = component(&Guest {
            describe: body,
            ..Guest::default()
        });
        engine.load(&bytes, None).unwrap().describe()
    };
    assert_eq!(describe("").unwrap(), DESCRIPTION);
    for (body, detail) in [
        (guests::PANIC, "oh no"),
        (guests::SPIN, "ran longer"),
        (guests::HOG, "asked for memory"),
        ("(i32.store offset=4 (i32.const 16) (i32.const 9))", "EOF"),
        (
            "(i32.store (i32.const 16) (i32.const 1024)) (i32.store offset=4 (i32.const 16) (i32.const 8))",
            "expected",
        ),
        (
            "(i32.store8 (i32.const 2048) (i32.const 255))",
            "cannot be read",
        ),
        (
            "(i32.store8 (i32.const 2048) (i32.const 0x31)) (i32.store offset=4 (i32.const 16) (i32.const 1))",
            "not an object",
        ),
    ] {
        let error = describe(body).unwrap_err();
        assert!(error.detail().contains(detail), "{detail}: {error}");
        assert_eq!(error.blame(), Blame::Plugin);
    }
}

#[test]
fn native_code_is_cached_and_a_damaged_entry_is_built_again() {
    let engine = engine();
    let folder = tempfile::tempdir().unwrap();
    let bytes = component(&Guest::default());
    let load = || engine.load(&bytes, Some(folder.path())).unwrap();
    assert!(!load().from_cache());
    assert!(load().from_cache());
    let entry = std::fs::read_dir(folder.path().join("native"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let mut code = std::fs::read(&entry).unwrap();
    let middle = code.len() / 2;
    code[middle] ^= 0xff;
    std::fs::write(&entry, &code).unwrap();
    assert!(!load().from_cache(), "a damaged entry was executed");
    assert_eq!(load().describe().unwrap(), DESCRIPTION);
    assert!(load().from_cache());
}

/// Not a gate: prints what a call and an instance cost. Run with `--ignored --nocapture`, optimised.
#[tokio::test]
#[ignore = "a measurement, not a check"]
async fn measure() {
    let plugin = plugin(&component(&Guest::default()));
    let mut instance = plugin.instantiate(1).await.unwrap();
    let (batch, fields) = records(256);
    let mut best = [Duration::MAX; 2];
    for _ in 0..200 {
        let start = Instant::now();
        for _ in 0..20 {
            let input = GuestBatch {
                input: 0,
                batch: &batch,
                fields: &fields,
                range: 0..256,
            };
            assert_eq!(instance.run(input).await.unwrap().ends.len(), 256);
        }
        best[0] = best[0].min(start.elapsed() / (20 * 256));
        let start = Instant::now();
        for _ in 0..20 {
            plugin.instantiate(1).await.unwrap();
        }
        best[1] = best[1].min(start.elapsed() / 20);
    }
    eprintln!(
        "pass-through, 256 records a call: {:?} a record; fresh instance {:?}",
        best[0], best[1]
    );
}
