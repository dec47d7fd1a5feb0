//! The settings about the way to the forge.

use std::path::{Path, PathBuf};

use super::certificates::Certificates;
use super::reader::Reader;
use super::values::redact_credentials;
use crate::log;

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
    match std::fs::read(file).map(|content| Certificates::of(&content)) {
        Err(error) => {
            let why = format!("{shown} cannot be read: {error}");
            reader.problem("OSCR_CA_FILE", why, "mount a PEM file there, or unset it");
        }
        Ok(found) if found.pem.is_empty() => {
            let why = format!("{shown} has no certificate in it (-----BEGIN CERTIFICATE-----)");
            reader.problem("OSCR_CA_FILE", why, "make a PEM file of it (openssl x509 -inform der), or unset it");
        }
        Ok(found) if found.private_key => reader.warning(format!(
            "OSCR_CA_FILE: {shown} has a private key in it. It is left out of what jobs are given to read; take it out of the \
             file, which is for certificates"
        )),
        Ok(_) => {}
    }
}
