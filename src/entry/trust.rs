//! One file with all certificates that the agent should trust: most tools take a single bundle in place of the system's.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use crate::config::{Certificates, Common};

/// Writes the certificates of `OSCR_CA_FILE` and the system's, and nothing else that is in these files: every job can
/// read it. Returns the file; `None` when the setting is unset and the system's own are all there is.
///
/// # Errors
/// When the setting's file cannot be read or the bundle not be written.
pub(super) fn bundle(common: &Common) -> io::Result<Option<PathBuf>> {
    let Some(own) = &common.network.ca_file else {
        return Ok(None);
    };
    // Whatever our own client reads, so that the agent trusts the same.
    let mut all = Certificates::of(&fs::read(own)?);
    all.der.extend(rustls_native_certs::load_native_certs().certs.iter().map(|certificate| certificate.to_vec()));
    let path = common.places.run().join("ca-bundle.pem");
    fs::create_dir_all(common.places.run())?;
    fs::write(&path, all.pem())?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
    Ok(Some(path))
}
