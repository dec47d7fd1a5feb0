//! The version of the runner that GitHub offers.

use reqwest::Method;
use serde::Deserialize;

use super::ask::Api;
use crate::provider::agents::architecture;
use crate::provider::contract::Package;
use crate::provider::fault::Fault;

#[derive(Deserialize)]
pub(super) struct Download {
    os: String,
    architecture: String,
    download_url: String,
    filename: String,
    sha256_checksum: Option<String>,
}

impl Api {
    /// The one for this machine.
    pub(crate) async fn package(&self) -> Result<Package, Fault> {
        let reply = self.ask(Method::GET, &format!("{}/runners/downloads", self.scope_url()), None).await?;
        self.expect(&reply, 200, "list the runner's downloads")?.json().and_then(package_of)
    }
}

/// The one of all downloads that is for this machine.
pub(super) fn package_of(downloads: Vec<Download>) -> Result<Package, Fault> {
    let architecture = architecture();
    let ours = downloads.into_iter().find(|download| download.os == "linux" && download.architecture == architecture);
    ours.and_then(|download| {
        // actions-runner-linux-x64-2.338.0.tar.gz
        let version = download.filename.strip_suffix(".tar.gz")?.rsplit('-').next()?;
        let plain = version.split('.').count() == 3 && version.chars().all(|c| c.is_ascii_digit() || c == '.');
        plain.then(|| Package {
            version: version.to_owned(),
            url: download.download_url,
            sha256: download.sha256_checksum,
        })
    })
    .ok_or_else(|| Fault::Unreachable(format!("GitHub names no version of the runner for linux {architecture}")))
}
