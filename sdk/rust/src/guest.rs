//! The component's exports: `describe`, `init`, `run`, between the generated bindings and [`crate::plugin`].
//! It owns the configuration of the instance and the panic hook; no plugin code sees it.

use std::sync::OnceLock;

use crate::bindings::exports::wasmill::plugin::transform::{Batch, Failure, Output};
use crate::bindings::wasmill::plugin::{log, types};
use crate::config::Setup;
use crate::plugin::{BatchView, Plugin};
use crate::{metrics, spec};

/// Where an instance keeps its configuration between calls.
pub struct Slot<P: Plugin>(OnceLock<P::Config>);

impl<P: Plugin> std::fmt::Debug for Slot<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("slot")
    }
}

impl<P: Plugin> Slot<P> {
    /// An empty one.
    #[must_use]
    pub const fn new() -> Self {
        Self(OnceLock::new())
    }
}

/// Says message and place of a panic before the trap: without it an author sees nothing.
fn tell_of_panics() {
    std::panic::set_hook(Box::new(|panic| {
        log::write(log::Level::Error, &panic.to_string());
    }));
}

/// The export `describe`.
#[must_use]
pub fn describe<P: Plugin>() -> String {
    tell_of_panics();
    spec::describe::<P>()
}

/// The export `init`.
///
/// # Errors
/// What is wrong with the configuration, for the operator.
pub fn init<P: Plugin>(slot: &Slot<P>, setup: &[u8]) -> Result<(), String> {
    tell_of_panics();
    let setup = Setup::<P::Config>::read(setup)?;
    crate::log::set_level(&setup.level);
    slot.0
        .set(setup.config)
        .map_err(|_| "init was called twice on one instance".to_owned())
}

/// The export `run`.
///
/// # Errors
/// The plugin's own fatal error, or a call before `init`.
pub fn run<P: Plugin>(slot: &Slot<P>, batch: &Batch) -> Result<Output, Failure> {
    let config = slot
        .0
        .get()
        .ok_or_else(|| Failure::Fatal("run was called before init".to_owned()))?;
    let (headers, header_ends) = batch
        .headers
        .as_ref()
        .map_or((&[][..], &[][..]), |headers| {
            (&headers.data[..], &headers.ends[..])
        });
    let view = BatchView {
        input: batch.input,
        partition: batch.partition,
        fields: &batch.fields,
        field_ends: &batch.field_ends,
        data: &batch.data,
        ends: &batch.ends,
        marks: &batch.marks,
        timestamps: &batch.timestamps,
        offsets: &batch.offsets,
        headers,
        header_ends,
    };
    let ran = crate::plugin::run::<P>(config, &view);
    metrics::flush();
    let ran = ran.map_err(Failure::Fatal)?;
    let rows = types::Rows {
        cells: ran.rows.cells,
        ends: ran.rows.ends,
        sources: ran.rows.sources,
        routes: ran.rows.routes,
        ops: ran.rows.ops,
        times: Vec::new(),
    };
    let rejects = ran.rejects.into_iter().map(|reject| types::Reject {
        source: reject.source,
        code: reject.code,
        reason: reject.reason,
    });
    Ok(Output {
        rows,
        rejects: rejects.collect(),
    })
}

/// Exports a plugin from the component; called once, by `#[plugin]`.
#[doc(hidden)]
#[macro_export]
macro_rules! __export_plugin {
    ($plugin:ty) => {
        #[allow(
            unsafe_code,
            reason = "the exports of a component are unsafe functions by name"
        )]
        const _: () = {
            use $crate::__guest::{Slot, bindings};

            static SLOT: Slot<$plugin> = Slot::new();
            struct Component;

            impl bindings::exports::wasmill::plugin::describe::Guest for Component {
                fn describe() -> ::std::string::String {
                    $crate::__guest::describe::<$plugin>()
                }
            }

            impl bindings::exports::wasmill::plugin::transform::Guest for Component {
                fn init(
                    setup: ::std::vec::Vec<u8>,
                ) -> ::std::result::Result<(), ::std::string::String> {
                    $crate::__guest::init(&SLOT, &setup)
                }

                fn run(
                    batch: bindings::exports::wasmill::plugin::transform::Batch,
                ) -> ::std::result::Result<
                    bindings::exports::wasmill::plugin::transform::Output,
                    bindings::exports::wasmill::plugin::transform::Failure,
                > {
                    $crate::__guest::run(&SLOT, &batch)
                }
            }

    bindings::export_component!(Component with_types_in ::wasmill_sdk::__guest::bindings);
        };
    };
}
