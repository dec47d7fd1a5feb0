//! The settings about the way to the forge.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::certificates::{self, Certificates};
use super::reader::Reader;
use super::values::redact_credentials;
use super::x509;
use crate::encode::{day, seconds};
use crate::log;
use crate::plain::plain;

/// How to reach the forge: proxies and trust.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Network {
    /// Proxy for `http://`.
    pub http_proxy: Option<String>,
    /// Proxy for `https://`.
    pub https_proxy: Option<String>,
    /// Hosts without proxy.
    pub no_proxy: Option<String>,
    /// Certificates to trust besides the system's.
    pub ca_file: Option<PathBuf>,
}

impl Network {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let mut proxy = |name| {
            let value = reader.text(name)?;
            if !value.starts_with("http://") && !value.starts_with("https://") {
                let shown = redact_credentials(&value);
                reader.problem(name, format!("{shown:?} is no proxy URL"), "write http://host:port");
                return None;
            }
            // The password in it must not reach the log by way of somebody's error message.
            if let Some((_, rest)) = value.split_once("://")
                && let Some((credentials, _)) = rest.split('/').next().unwrap_or_default().rsplit_once('@')
                && let Some((_, password)) = credentials.split_once(':')
            {
                log::redact(password);
            }
            Some(value)
        };
        let http_proxy = proxy("HTTP_PROXY");
        let https_proxy = proxy("HTTPS_PROXY");
        let ca_file = reader.text("OSCR_CA_FILE").map(PathBuf::from);
        if let Some(file) = &ca_file {
            look_at(file, reader);
        }
        Self { http_proxy, https_proxy, no_proxy: reader.text("NO_PROXY"), ca_file }
    }
}

/// Whether a file of certificates is one.
fn look_at(file: &Path, reader: &mut Reader<'_>) {
    let shown = file.display();
    let content = match std::fs::read(file) {
        Ok(content) => content,
        Err(error) if error.kind() == ErrorKind::IsADirectory => {
            let why = format!("{shown} is a directory");
            let cure = "name the file in it; where Docker made the directory, the file that should be mounted is not on the host";
            reader.problem("OSCR_CA_FILE", why, cure);
            return;
        }
        Err(error) => {
            reader.problem(
                "OSCR_CA_FILE",
                format!("{shown} cannot be read: {error}"),
                "mount a file there, or unset it",
            );
            return;
        }
    };
    let found = Certificates::of(&content);
    let (usable, useless) = found.roots();
    if usable.is_empty() {
        let why = if content.is_empty() { "is empty" } else { "has no certificate in it that can be used" };
        reader.problem("OSCR_CA_FILE", format!("{shown} {why}"), certificates::cure(&content));
        return;
    }
    let useless = useless + found.unreadable;
    if useless > 0 {
        reader.warning(format!(
            "OSCR_CA_FILE: {useless} of the certificates in {shown} cannot be read and are passed over"
        ));
    }
    let now = seconds(SystemTime::now());
    let expired = found.der.iter().filter_map(|it| x509::facts(it)).filter(|facts| facts.ends < now);
    for facts in expired {
        let (name, day) = (plain(facts.common_name.unwrap_or("without a name")), day(facts.ends));
        reader.warning(format!("OSCR_CA_FILE: the certificate of {name:?} in {shown} expired on {day}"));
    }
    if found.private_key {
        reader.warning(format!(
            "OSCR_CA_FILE: {shown} has a private key in it. It is left out of what jobs are given to read; take it out of the \
             file, which is for certificates"
        ));
    }
}
