//! From a received component to an immutable version in the control log: checked in a process of its own, then
//! stored, then entered. One that is refused leaves no version; bytes that lost a race stay in the log unused.

use std::sync::Arc;

use crate::admin::types::{self, Uploaded, VersionInfo};
use crate::admin::{Kind, NewUpload, Refusal};
use crate::assemble::hub::Hub;
use crate::control::{Change, Outcome, PluginVersion, Signature, State};
use crate::error::Error;
use crate::task;
use crate::upload::{self, Checker, UploadReport};

/// Checks and stores an upload.
pub(super) async fn upload(
    hub: &Arc<Hub>,
    checker: &Checker,
    upload: NewUpload,
) -> Result<Uploaded, Refusal> {
    let report = upload::check(checker, upload.file.clone(), upload.signature.clone()).await?;
    let plugin = report.plugin();
    let state = hub.control.state();
    if let Some(known) = state.version(&report.name, &report.version)
        && known.digest != upload.digest
    {
        return Err(taken(&plugin, &known.digest, &upload.digest));
    }
    let created = state.version(&report.name, &report.version).is_none();
    let file = upload.file.clone();
    let bytes = task::blocking(move || std::fs::read(file))
        .await?
        .map_err(|error| Error::outside("read the upload", error))?;
    hub.control.put_blob(&upload.digest, bytes).await?;
    let change = Change::Version {
        name: report.name.clone(),
        version: report.version.clone(),
        digest: upload.digest.clone(),
        size: upload.size,
        signature: signature(&report, upload.signature.as_deref()),
        facts: serde_json::to_value(&report)
            .map_err(|error| Error::bug("keep what the checks found", error))?,
    };
    if let Outcome::Rejected(reason) = hub.control.submit(&upload.by, change).await? {
        let error = Error::config(format!("upload {plugin}"), reason)
            .hint("a version never changes: give the plugin another version and build it again");
        return Err(Refusal::new(Kind::Conflict, error));
    }
    Ok(Uploaded {
        plugin,
        digest: upload.digest,
        size: upload.size,
        created,
        report: shown(&report),
    })
}

/// The signature of an upload, for the hosts that load the version later: they may ask for one where this host does not.
/// It names no key then, and what is no signature at all is dropped.
fn signature(report: &UploadReport, value: Option<&str>) -> Option<Signature> {
    let value = value?.trim();
    value.parse::<upload::Signature>().ok()?;
    Some(Signature {
        key: report.signed_by.clone().unwrap_or_default(),
        value: value.to_owned(),
    })
}

fn taken(plugin: &str, known: &str, sent: &str) -> Refusal {
    let detail = format!("it exists as {known}, the upload is {sent}");
    Refusal::new(
        Kind::Conflict,
        Error::config(format!("upload {plugin}"), detail)
            .hint("a version never changes: give the plugin another version and build it again"),
    )
}

/// The report in the words of the API.
fn shown(report: &UploadReport) -> types::UploadReport {
    let mut checks = vec![
        "valid component of a known track".to_owned(),
        "imports within what may be granted".to_owned(),
        "manifest equals describe".to_owned(),
        "limits within the host's ceilings".to_owned(),
        "delivery that can be given".to_owned(),
        "native code within the limits".to_owned(),
    ];
    if let Some(key) = &report.signed_by {
        checks.push(format!("signed by {key}"));
    }
    types::UploadReport {
        checks,
        fixtures: u32::try_from(report.fixtures.len()).unwrap_or(u32::MAX),
        compile_ms: if report.from_cache {
            0
        } else {
            report.compile_ms
        },
        asks: report.capabilities.clone(),
        signed_by: report.signed_by.clone(),
        warnings: report.warnings.clone(),
    }
}

/// Every version of the control log.
pub(super) fn list(state: &State) -> Vec<VersionInfo> {
    state
        .versions()
        .into_iter()
        .map(|version| info(state, version))
        .collect()
}

fn info(state: &State, version: &PluginVersion) -> VersionInfo {
    let plugin = format!("{}@{}", version.name, version.version);
    let running = state.pipelines().filter(|(_, revision)| {
        let deployment = &revision.deployment;
        !deployment.removed
            && deployment
                .releases()
                .any(|release| release.digest == version.digest)
    });
    let text = |key: &str| {
        let value = version.facts.get(key).and_then(serde_json::Value::as_str);
        value.map(str::to_owned)
    };
    VersionInfo {
        pipelines: running.map(|(name, _)| name.to_owned()).collect(),
        plugin,
        digest: version.digest.clone(),
        size: version.size,
        track: "since-v0.1".to_owned(),
        at: super::status::time(version.written.at),
        by: version.written.by.clone(),
        signed_by: version
            .signature
            .as_ref()
            .filter(|signature| signature.was_verified())
            .map(|signature| signature.key.clone()),
        description: text("description"),
    }
}
