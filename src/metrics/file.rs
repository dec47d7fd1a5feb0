//! The page of metrics as a file, for the textfile collector of Prometheus' node exporter.

use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::files::replace;

/// The file. The collector may read it at any moment, so it is replaced in one step.
#[derive(Debug, Clone)]
pub(crate) struct MetricsFile {
    path: PathBuf,
}

impl MetricsFile {
    /// The file that `setting` means: itself, or, if it is a directory, `oscr-<replica>.prom` in it, so that replicas can share
    /// a directory.
    #[must_use]
    pub(crate) fn at(setting: &Path, replica: &str) -> Self {
        let path = if setting.is_dir() { setting.join(format!("oscr-{replica}.prom")) } else { setting.to_owned() };
        Self { path }
    }

    /// Where it is.
    #[must_use]
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the page.
    ///
    /// # Errors
    /// When it cannot be written; the old one is intact then.
    pub(crate) fn write(&self, page: &str) -> io::Result<()> {
        // The collector is another user.
        replace(&self.path, page.as_bytes(), 0o644)
    }

    /// Takes the file away: a runner that was stopped would else look alive for ever.
    pub(crate) fn remove(&self) {
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn a_link_that_lies_there_is_replaced_and_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let victim = directory.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        let file = MetricsFile::at(&directory.path().join("x.prom"), "r");
        symlink(&victim, directory.path().join(".x.prom.new")).unwrap();
        symlink(&victim, file.path()).unwrap();
        file.write("page\n").unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        assert_eq!(fs::read_to_string(file.path()).unwrap(), "page\n");
        assert_eq!(fs::metadata(file.path()).unwrap().permissions().mode() & 0o777, 0o644);
        file.remove();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_directory_gets_a_file_for_each_replica() {
        let directory = tempfile::tempdir().unwrap();
        let file = MetricsFile::at(directory.path(), "c0ffee");
        assert_eq!(file.path(), directory.path().join("oscr-c0ffee.prom"));
    }
}
