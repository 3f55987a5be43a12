//! What a plugin may do on a host: a flood of messages is cut at the plugin's own rate, and counted.

use std::io::Write;
use std::sync::{Arc, Mutex};

use wasmill::manifest::extract;
use wasmill::plugin::{Allocation, Engine, EngineOptions, GuestBatch, Plugin as _, PluginSettings};
use wasmill::record::{Batch, Fields, Record, cells};

use crate::made::guest;

/// What was logged.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<u8>>>);

impl Write for Said {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_flood_of_messages_is_cut_at_the_rate_and_counted() {
    let component = guest("log-flood");
    let manifest = extract(&component).unwrap().check().unwrap();
    let mut setup = Vec::new();
    cells::put(&mut setup, b"p");
    cells::put(&mut setup, b"info");
    let mut settings = PluginSettings::of(&manifest, "p", setup);
    settings.limits.log_lines_per_second = 25;
    let engine = Engine::new(EngineOptions {
        allocation: Allocation::OnDemand,
    })
    .unwrap();
    let plugin = engine.load(&component, None).unwrap().into_plugin(settings);
    let counters = plugin.counters();
    let (mut batch, mut fields) = (Batch::new(0, 0), Fields::default());
    for index in 0..10_u32 {
        batch.push(Record {
            key: Some(b"k"),
            value: Some(b"{}"),
            timestamp: 1,
            offset: index.into(),
            headers: b"",
            marks: 0,
        });
        cells::put(&mut fields.cells, b"k");
        cells::put_null(&mut fields.cells);
        fields.ends.push(u32::try_from(fields.cells.len()).unwrap());
        fields.kept.push(index);
    }
    let said = Said::default();
    let writer = said.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(move || writer.clone())
        .with_ansi(false)
        .finish();
    let start = std::time::Instant::now();
    tracing::subscriber::with_default(subscriber, || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut instance = plugin.instantiate(1).await.unwrap();
            let input = GuestBatch {
                input: 0,
                batch: &batch,
                fields: &fields,
                range: 0..10,
            };
            let output = instance.run(input).await.unwrap();
            assert_eq!(output.ends.len(), 10, "the flood took rows with it");
        });
    });
    let seconds = usize::try_from(start.elapsed().as_secs()).unwrap() + 1;
    let text = String::from_utf8(said.0.lock().unwrap().clone()).unwrap();
    let lines = text
        .lines()
        .filter(|line| line.contains("pipeline=\"p\""))
        .count();
    assert!(lines >= 25, "{lines} lines of 10,000: {text}");
    assert!(lines <= 26 * seconds, "{lines} lines in {seconds} s");
    assert_eq!(counters.snapshot().len(), 64);
    assert!(counters.refused() > 0);
}
