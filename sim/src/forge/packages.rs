//! Packages of the stand-in agents, as a forge offers newer versions of the official ones.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};

use super::Shared;
use super::orders::PackageFault;
use crate::agent::{self, Kind};

/// What a package says that is another version than it is offered as.
const OTHER: &str = "0.0.1";

/// Names a folder with an agent that is offered, as whatever version, in place of the stand-in.
pub(crate) const AGENT_DIR: &str = "OSCR_SIM_AGENT_DIR";

/// A package's bytes and their SHA-256.
type Package = Arc<(Vec<u8>, String)>;

/// What was packed so far, by any forge of this process: it takes a moment, and its bytes are the same each time.
static PACKED: Mutex<BTreeMap<String, Package>> = Mutex::new(BTreeMap::new());

/// The agent of a folder.
fn of_folder(folder: &Path) -> io::Result<(Vec<u8>, String)> {
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    tar.follow_symlinks(false);
    tar.append_dir_all(".", folder)?;
    let bytes = tar.into_inner()?.finish()?;
    let sum = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
    Ok((bytes, sum))
}

fn packed(kind: Kind, version: &str) -> io::Result<Package> {
    let name = format!("{kind:?} {version}");
    let mut packed = PACKED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(package) = packed.get(&name) {
        return Ok(Arc::clone(package));
    }
    let package = match std::env::var_os(AGENT_DIR) {
        Some(folder) => of_folder(Path::new(&folder))?,
        None => agent::archive(kind, &agent::programs_dir()?, Some(version), Compression::fast())?,
    };
    let package = Arc::new(package);
    packed.insert(name, Arc::clone(&package));
    Ok(package)
}

async fn package(shared: &Shared, kind: Kind, version: &str) -> Option<Package> {
    let other = shared.read(|s| s.orders.package_fault == Some(PackageFault::Version));
    let version = if other { OTHER.to_owned() } else { version.to_owned() };
    // Not on the thread that serves: packing takes a moment.
    let packed = tokio::task::spawn_blocking(move || packed(kind, &version)).await;
    packed.ok()?.inspect_err(|error| eprintln!("forge: {error}")).ok()
}

/// The checksum under which a version is offered; none where the programs to pack are not at hand.
pub(crate) async fn offer(shared: &Arc<Shared>, kind: Kind, version: &str) -> Option<String> {
    let package = package(shared, kind, version).await?;
    let wrong = shared.read(|s| s.orders.package_fault == Some(PackageFault::Hash));
    Some(if wrong { "0".repeat(64) } else { package.1.clone() })
}

/// Whose package a path names, and of which version.
pub(crate) fn named(path: &str) -> Option<(Kind, String)> {
    let segments: Vec<&str> = path.split('/').filter(|s| !s.is_empty()).collect();
    match segments.as_slice() {
        ["agent", version, _] => Some((Kind::Azure, (*version).to_owned())),
        ["actions", "runner", "releases", "download", version, _] => {
            Some((Kind::GitHub, version.trim_start_matches('v').to_owned()))
        }
        _ => None,
    }
}

/// The download, which needs no credential.
pub(crate) async fn download(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let missing = shared.read(|s| s.orders.package_fault == Some(PackageFault::Missing));
    let Some((kind, version)) = named(request.uri().path()).filter(|_| !missing) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    match package(&shared, kind, &version).await {
        Some(package) => ([(header::CONTENT_TYPE, "application/gzip")], package.0.clone()).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
