//! What no change may look like, whoever wrote it: names, versions, digests, numbers. Pure.

use super::apply::Applied;
use super::entry::{self, Change};
use super::store;

/// Why a change cannot be one, if it cannot.
pub(super) fn fault(change: &Change) -> Option<String> {
    let name = |what: &str, name: &str| {
        (!entry::is_name(name))
            .then(|| format!("{what} {name:?} is not [a-z0-9][a-z0-9_-]*, at most 63 characters"))
    };
    match change {
        Change::Version {
            name: plugin,
            version,
            digest,
            ..
        } => name("plugin name", plugin)
            .or_else(|| {
                let fault = semver::Version::parse(version).err()?;
                Some(format!(
                    "version {version:?} is not a semantic version: {fault}"
                ))
            })
            .or_else(|| {
                let bad = entry::hex_of(digest).is_none();
                bad.then(|| format!("digest {digest:?} is not \"sha256:\" and 64 hex digits"))
            }),
        Change::Deploy {
            pipeline,
            revision,
            deployment,
        } => name("pipeline name", pipeline)
            .or_else(|| (*revision == 0).then(|| "revisions count from 1".to_owned()))
            .or_else(|| {
                let most = u64::from(u32::MAX);
                (*revision > most).then(|| format!("revision {revision} is past {most}"))
            })
            .or_else(|| deployment.fault()),
        Change::Segment {
            pipeline,
            partition,
            at,
            release,
        } => name("pipeline name", pipeline).or_else(|| {
            let fits = *partition >= 0 && *at >= 0 && is_release(release);
            (!fits)
                .then(|| format!("no segment: partition {partition} at {at}, release {release:?}"))
        }),
        Change::Stat { pipeline, host, .. } => {
            name("pipeline name", pipeline).or_else(|| host_fault(host))
        }
        Change::Published {
            pipeline,
            host,
            hash,
            ..
        } => name("pipeline name", pipeline)
            .or_else(|| host_fault(host))
            .or_else(|| (!is_release(hash)).then(|| format!("{hash:?} is no release's id"))),
        Change::Done { pipeline, .. } => name("pipeline name", pipeline),
        Change::Named | Change::Denied { .. } => None,
    }
}

fn host_fault(host: &str) -> Option<String> {
    (!entry::is_host(host))
        .then(|| format!("host {host:?} is not letters, digits, '.', '_' and '-', at most 63"))
}

/// Whether a text can be a release's id.
fn is_release(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether a record can be a chunk.
pub(super) fn check_chunk(digest: &str, number: u32, size: usize) -> Applied {
    let fits = entry::hex_of(digest).is_some()
        && number < store::MAX_CHUNKS
        && (1..=store::CHUNK).contains(&size);
    if fits {
        return Applied::Accepted;
    }
    Applied::Ignored {
        reason: format!("no chunk of a blob: {digest:?} number {number}, {size} bytes"),
    }
}
