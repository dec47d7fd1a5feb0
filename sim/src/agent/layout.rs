//! An agent laid out as a release archive has it, and that archive.

use std::fs::{self, File};
use std::io::{self, Read as _, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};

/// The files beside the two programs.
const FILES: [(&str, u32, &str); 6] = [
    ("config.sh", 0o755, include_str!("layout/config.sh")),
    ("run.sh", 0o755, include_str!("layout/run.sh")),
    ("run-helper.sh.template", 0o755, include_str!("layout/run-helper.sh.template")),
    ("env.sh", 0o755, include_str!("layout/env.sh")),
    ("safe_sleep.sh", 0o755, include_str!("layout/safe_sleep.sh")),
    ("externals/README", 0o644, "The official agent has its Node.js versions here; the stand-in needs none.\n"),
];

const PROGRAMS: [(&str, &str); 2] =
    [("runner-listener", "bin/Runner.Listener"), ("runner-worker", "bin/Runner.Worker")];

const FOLDERS: [&str; 3] = ["./", "bin/", "externals/"];

/// Where cargo put the stand-in's programs: `OSCR_SIM_BIN_DIR`, or the folder of the test that runs now.
///
/// # Errors
///
/// When they are not there; the text says what to run.
pub fn programs_dir() -> io::Result<PathBuf> {
    let mut candidates: Vec<PathBuf> = std::env::var_os("OSCR_SIM_BIN_DIR").map(PathBuf::from).into_iter().collect();
    let this = std::env::current_exe()?;
    candidates.extend(this.ancestors().skip(1).take(2).map(Path::to_path_buf));
    candidates
        .into_iter()
        .find(|dir| PROGRAMS.iter().all(|(program, _)| dir.join(program).is_file()))
        .ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                "the stand-in agent is not built: run `cargo build -p oscr-sim --bins` for the same target and profile, \
                 or set OSCR_SIM_BIN_DIR",
            )
        })
}

/// Lays an agent out in `root`, with the programs of `programs` (see [`programs_dir`]).
///
/// # Errors
///
/// When a file cannot be written.
pub fn install(programs: &Path, root: &Path) -> io::Result<()> {
    fs::create_dir_all(root)?;
    for folder in &FOLDERS[1..] {
        fs::create_dir_all(root.join(folder))?;
    }
    for (name, mode, text) in FILES {
        let path = root.join(name);
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
    }
    for (program, name) in PROGRAMS {
        let path = root.join(name);
        // A link is quick and never "text file busy", as a fresh copy can be while another thread forks.
        match fs::hard_link(programs.join(program), &path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                fs::copy(programs.join(program), &path)?;
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
pub fn pack(programs: &Path, archive: &Path) -> io::Result<String> {
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    for folder in FOLDERS {
        append(&mut tar, folder, 0o755, tar::EntryType::Directory, &[])?;
    }
    for (name, mode, text) in FILES {
        append(&mut tar, name, mode, tar::EntryType::Regular, text.as_bytes())?;
    }
    for (program, name) in PROGRAMS {
        let path = programs.join(program);
        let mut bytes = Vec::new();
        File::open(&path)
            .and_then(|mut file| file.read_to_end(&mut bytes))
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
        append(&mut tar, name, 0o755, tar::EntryType::Regular, &bytes)?;
    }
    let bytes = tar.into_inner()?.finish()?;
    File::create(archive)?.write_all(&bytes)?;
    Ok(Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect())
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
