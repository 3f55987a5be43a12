//! `wasmill openapi`: the document of the HTTP API, made from the code; a running host gives the same at
//! `/openapi.json`. Opens nothing.

use super::{Failure, report};
use crate::admin;
use crate::error::Error;

/// Print the OpenAPI document of the HTTP API.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  wasmill openapi > wasmill.openapi.json")]
pub(super) struct Openapi {}

impl Openapi {
    #[expect(clippy::unused_self, reason = "every command is executed the same way")]
    pub(super) fn execute(self) -> Result<(), Failure> {
        let document = serde_json::to_value(admin::document())
            .map_err(|error| Error::bug("write the OpenAPI document", error))?;
        report::json(&document);
        Ok(())
    }
}
