//! Secrets as types that cannot be printed, and where they come from.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::reading::meant;
use super::secret_text::{Misplaced, SecretForm, misplaced, value};
use crate::log;

/// The longest secret that is read from a file, in bytes. A private key is a few kilobytes.
const LONGEST: u64 = 64 * 1024;

/// A value that cannot be printed and is wiped from memory when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes `value` in, and has the log blank it out from now on.
    #[must_use]
    pub(crate) fn new(value: String) -> Self {
        log::redact(&value);
        Self(Zeroizing::new(value))
    }

    /// The value itself, for the one place that hands it on. The name is meant to stand out in a review.
    #[must_use]
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl<'de> serde::Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

/// Where a secret comes from. A file is read anew for each use, so that a corrected one counts at once.
#[derive(Debug, Clone)]
pub struct SecretSource {
    /// The setting that named it, such as `GITHUB_PAT` or `GITHUB_PAT_FILE`.
    pub setting: String,
    origin: SecretOrigin,
}

#[derive(Debug, Clone)]
enum SecretOrigin {
    Environment(Secret),
    File(PathBuf),
}

/// Why a secret cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("{setting} names {}, which cannot be read: {source}", file.display())]
    Unreadable { setting: String, file: PathBuf, source: io::Error },
    /// The file holds nothing.
    #[error("{setting} names {}, which is empty", file.display())]
    Empty { setting: String, file: PathBuf },
    /// It is a directory.
    #[error("{setting} names {}, which is a directory", file.display())]
    Directory { setting: String, file: PathBuf },
    /// It is plainly something else.
    #[error("{setting} {}holds {}", file.as_ref().map(|file| format!("names {}, which ", file.display())).unwrap_or_default(), found.what)]
    Misplaced { setting: String, file: Option<PathBuf>, found: Misplaced },
    /// The file does not look like a secret.
    #[error("{setting} names {}, which is longer than {LONGEST} bytes or not text in UTF-8", file.display())]
    NotText { setting: String, file: PathBuf },
}

impl SecretError {
    /// What to do about it.
    #[must_use]
    pub(crate) fn cure(&self) -> String {
        match self {
            Self::Directory { .. } => "Docker makes one where the file to mount is missing: remove it on the host, put the file there, and make \
                                       the container anew"
                .to_owned(),
            Self::Misplaced { found, .. } => found.cure.to_owned(),
            Self::NotText { .. } => "save it as plain text in UTF-8, with nothing but the secret in it".to_owned(),
            Self::Unreadable { setting, .. } | Self::Empty { setting, .. } => {
                format!("mount the secret there, or unset {setting}")
            }
        }
    }
}

/// What a file looked like at some moment; it differs once somebody corrected the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileStamp(Option<(u64, u64, i64, i64, u64)>);

impl SecretSource {
    /// A secret given as a plain value.
    #[must_use]
    pub(crate) fn environment(setting: &str, value: Secret) -> Self {
        Self { setting: setting.to_owned(), origin: SecretOrigin::Environment(value) }
    }

    /// A secret in a file.
    #[must_use]
    pub(crate) fn file(setting: &str, file: PathBuf) -> Self {
        Self { setting: setting.to_owned(), origin: SecretOrigin::File(file) }
    }

    /// The file, if it is one.
    #[must_use]
    pub(crate) fn path(&self) -> Option<&Path> {
        match &self.origin {
            SecretOrigin::Environment(_) => None,
            SecretOrigin::File(file) => Some(file),
        }
    }

    /// The value, without what files and shells put around it.
    ///
    /// # Errors
    /// When a file cannot be read, or what is there is plainly something else.
    pub fn read(&self) -> Result<Secret, SecretError> {
        self.look().map(|(secret, _)| secret)
    }

    /// Whether a name and `=` stand before the value, which are no part of it.
    #[must_use]
    pub(crate) fn is_named(&self) -> bool {
        self.look().is_ok_and(|(_, named)| named)
    }

    fn look(&self) -> Result<(Secret, bool), SecretError> {
        let text = self.text()?;
        let name = self.setting.strip_suffix("_FILE").unwrap_or(&self.setting);
        let (value, named) = value(text.expose(), &[name]);
        let form = match name {
            _ if name.ends_with("PRIVATE_KEY") => SecretForm::Key,
            _ if name.ends_with("JITCONFIG") => SecretForm::Encoded,
            _ => SecretForm::Word,
        };
        match misplaced(value, form) {
            Some(found) => Err(SecretError::Misplaced {
                setting: self.setting.clone(),
                file: self.path().map(Path::to_owned),
                found,
            }),
            None if value == text.expose() => Ok((text, named)),
            None => Ok((Secret::new(value.to_owned()), named)),
        }
    }

    /// What is there, without white space around it.
    fn text(&self) -> Result<Secret, SecretError> {
        let file = match &self.origin {
            SecretOrigin::Environment(secret) => return Ok(secret.clone()),
            SecretOrigin::File(file) => file,
        };
        let setting = self.setting.clone();
        let unreadable = |source| SecretError::Unreadable { setting: setting.clone(), file: file.clone(), source };
        let mut bytes = Zeroizing::new(Vec::new());
        if file.is_dir() {
            return Err(SecretError::Directory { setting, file: file.clone() });
        }
        File::open(file).map_err(unreadable)?.take(LONGEST + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        match std::str::from_utf8(&bytes) {
            Ok(text) if bytes.len() as u64 <= LONGEST => match meant(text) {
                "" => Err(SecretError::Empty { setting, file: file.clone() }),
                text => Ok(Secret::new(text.to_owned())),
            },
            _ => Err(SecretError::NotText { setting, file: file.clone() }),
        }
    }

    /// What the file looks like now; always the same for a plain value.
    #[must_use]
    pub(crate) fn stamp(&self) -> FileStamp {
        FileStamp(self.path().and_then(|file| {
            let meta = fs::metadata(file).ok()?;
            Some((meta.dev(), meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.size()))
        }))
    }
}

impl fmt::Display for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            SecretOrigin::Environment(_) => write!(f, "{} (environment)", self.setting),
            SecretOrigin::File(file) => write!(f, "{} ({})", self.setting, file.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_cannot_be_printed() {
        let secret = Secret::new("correct-horse-battery".to_owned());
        let source = SecretSource::environment("GITHUB_PAT", secret.clone());
        assert!(!format!("{secret:?} {source:?} {source}").contains("horse"));
    }

    #[test]
    fn a_file_is_read_anew_and_its_change_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pat");
        let source = SecretSource::file("GITHUB_PAT_FILE", file.clone());
        assert!(source.read().unwrap_err().to_string().contains("cannot be read"));
        let absent = source.stamp();
        fs::write(&file, "one-secret\n").unwrap();
        assert_ne!(source.stamp(), absent);
        assert_eq!(source.read().unwrap().expose(), "one-secret");
        fs::write(&file, " \n").unwrap();
        assert!(source.read().unwrap_err().to_string().contains("is empty"));
        fs::write(&file, [0xff; 8]).unwrap();
        assert!(source.read().unwrap_err().to_string().contains("not text"));
    }
}
