//! An agent laid out as a release archive has it, and that archive.

use std::fs::{self, File};
use std::io::{self, Read as _, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};

use super::kind::{Facts, Kind};

/// What is built, and serves as listener and worker of every kind.
const PROGRAMS: [&str; 2] = ["runner-listener", "runner-worker"];

const FOLDERS: [&str; 3] = ["./", "bin/", "externals/"];

/// Says which version an agent is that was packed as another one than its kind's.
pub(super) const VERSION_FILE: &str = "bin/version";

/// The programs, each with its name in an agent of this kind.
fn programs(kind: Kind) -> [(&'static str, &'static str); 2] {
    let Facts { listener, worker, .. } = kind.facts();
    [(PROGRAMS[0], listener), (PROGRAMS[1], worker)]
}

/// The files beside the programs.
fn files(kind: Kind) -> impl Iterator<Item = (&'static str, u32, &'static str)> {
    const NOTE: &str = "The official agent has its Node.js versions here; the stand-in needs none.\n";
    kind.facts().files.iter().copied().chain([("externals/README", 0o644, NOTE)])
}

/// Where cargo put the stand-in's programs: `OSCR_SIM_BIN_DIR`, or the folder of the test that runs now.
///
/// # Errors
///
/// When they are not there; the text says what to run.
pub fn programs_dir() -> io::Result<PathBuf> {
    let mut candidates: Vec<PathBuf> = std::env::var_os("OSCR_SIM_BIN_DIR").map(PathBuf::from).into_iter().collect();
    let this = std::env::current_exe()?;
    candidates.extend(this.ancestors().skip(1).take(2).map(Path::to_path_buf));
    candidates.into_iter().find(|dir| PROGRAMS.iter().all(|program| dir.join(program).is_file())).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::NotFound,
            "the stand-in agent is not built: run `cargo build -p oscr-sim --bins` for the same target and profile, \
                 or set OSCR_SIM_BIN_DIR",
        )
    })
}

/// Lays an agent out in `root`, with the programs of the folder `built` (see [`programs_dir`]).
///
/// # Errors
///
/// When a file cannot be written.
pub fn install(kind: Kind, built: &Path, root: &Path) -> io::Result<()> {
    fs::create_dir_all(root)?;
    for folder in &FOLDERS[1..] {
        fs::create_dir_all(root.join(folder))?;
    }
    for (name, mode, text) in files(kind) {
        let path = root.join(name);
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
    }
    for (program, name) in programs(kind) {
        let path = root.join(name);
        // A link is quick and never "text file busy", as a fresh copy can be while another thread forks.
        match fs::hard_link(built.join(program), &path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                fs::copy(built.join(program), &path)?;
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes the archive, the same bytes from the same programs, and gives its SHA-256.
///
/// # Errors
///
/// When a program is missing or the archive cannot be written.
pub fn pack(kind: Kind, built: &Path, to: &Path) -> io::Result<String> {
    let (bytes, sum) = archive(kind, built, None, Compression::default())?;
    File::create(to)?.write_all(&bytes)?;
    Ok(sum)
}

/// The archive of a release, of another `version` where one is named, and its SHA-256.
///
/// # Errors
///
/// When a program is missing.
pub fn archive(
    kind: Kind,
    built: &Path,
    version: Option<&str>,
    compression: Compression,
) -> io::Result<(Vec<u8>, String)> {
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), compression));
    for folder in FOLDERS {
        append(&mut tar, folder, 0o755, tar::EntryType::Directory, &[])?;
    }
    for (name, mode, text) in files(kind) {
        append(&mut tar, name, mode, tar::EntryType::Regular, text.as_bytes())?;
    }
    if let Some(version) = version {
        append(&mut tar, VERSION_FILE, 0o644, tar::EntryType::Regular, version.as_bytes())?;
    }
    for (program, name) in programs(kind) {
        let path = built.join(program);
        let mut bytes = Vec::new();
        File::open(&path)
            .and_then(|mut file| file.read_to_end(&mut bytes))
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
        append(&mut tar, name, 0o755, tar::EntryType::Regular, &bytes)?;
    }
    let bytes = tar.into_inner()?.finish()?;
    let sum = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
    Ok((bytes, sum))
}

fn append(
    tar: &mut tar::Builder<impl Write>,
    name: &str,
    mode: u32,
    kind: tar::EntryType,
    bytes: &[u8],
) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_size(bytes.len() as u64);
    header.set_mode(mode);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_username("root")?;
    header.set_groupname("root")?;
    tar.append_data(&mut header, name, bytes)
}
