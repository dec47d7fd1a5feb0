//! One file with all certificates that the agent should trust: most tools take a single bundle in place of the system's.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::config::{Certificates, Common};

/// Where distributions keep their certificates.
const SYSTEM: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Writes the system's certificates followed by those of `OSCR_CA_FILE`, and nothing else that is in these files: every job can
/// read it. Returns the file; `None` when the setting is unset and the system's own are all there is.
///
/// # Errors
/// When the setting's file cannot be read or the bundle not be written.
pub(super) fn bundle(common: &Common) -> io::Result<Option<PathBuf>> {
    let Some(own) = &common.network.ca_file else {
        return Ok(None);
    };
    let system = SYSTEM.iter().find_map(|file| fs::read(Path::new(file)).ok()).unwrap_or_default();
    let mut text = Certificates::of(&system).pem;
    text.extend(Certificates::of(&fs::read(own)?).pem);
    let path = common.places.run().join("ca-bundle.pem");
    fs::create_dir_all(common.places.run())?;
    fs::write(&path, text)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
    Ok(Some(path))
}
