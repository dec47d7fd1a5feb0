//! Users and groups, read from `/etc/passwd` and `/etc/group` by ourselves: a static glibc must not load NSS modules.

use std::fs;
use std::io;
use std::path::PathBuf;

use nix::unistd::{Gid, Uid};

use crate::os::Identity;
use crate::shown::{quoted, shown};

/// A user as the files describe them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    /// Login name; the number itself for a user without an entry.
    pub name: String,
    /// User id, group id, and the groups that list the user.
    pub identity: Identity,
    /// Home directory.
    pub home: PathBuf,
    /// Login shell.
    pub shell: PathBuf,
}

/// Why a user or group cannot be resolved.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AccountError {
    /// The name is in no line of the file.
    #[error("there is no {kind} {} in {}", shown(name), file.display())]
    Unknown {
        /// `user` or `group`.
        kind: &'static str,
        /// The name looked for.
        name: String,
        /// The file read.
        file: PathBuf,
    },
    /// The file cannot be read, and a name cannot be resolved without it.
    #[error("{} cannot be read to find {}: {source}", file.display(), shown(name))]
    Unreadable {
        /// The name looked for.
        name: String,
        file: PathBuf,
        source: io::Error,
    },
    /// `user:group` with an empty part.
    #[error("{} is not USER or USER:GROUP", quoted(.0))]
    Malformed(String),
}

/// The files to read; other ones in tests.
#[derive(Debug, Clone)]
pub(crate) struct Accounts {
    passwd: PathBuf,
    group: PathBuf,
}

impl Default for Accounts {
    fn default() -> Self {
        Self { passwd: PathBuf::from("/etc/passwd"), group: PathBuf::from("/etc/group") }
    }
}

impl Accounts {
    /// Reads `passwd` and `group` below `directory` in place of `/etc`.
    #[cfg(test)]
    pub(crate) fn below(directory: &std::path::Path) -> Self {
        Self { passwd: directory.join("passwd"), group: directory.join("group") }
    }

    /// Resolves `USER`, `UID`, `USER:GROUP` or any mix of names and numbers. A number needs no file; with `:GROUP`, only
    /// that group is taken, as in Docker.
    ///
    /// # Errors
    /// When a name is unknown or the file that would know it cannot be read.
    pub(crate) fn resolve(&self, spec: &str) -> Result<Account, AccountError> {
        let (user, group) = match spec.split_once(':') {
            Some((user, group)) if !user.is_empty() && !group.is_empty() => (user, Some(group)),
            Some(_) => return Err(AccountError::Malformed(spec.to_owned())),
            None if spec.is_empty() => return Err(AccountError::Malformed(spec.to_owned())),
            None => (spec, None),
        };
        let mut account = self.user(user)?;
        if let Some(group) = group {
            let gid = self.group(group)?;
            account.identity.gid = gid;
            account.identity.groups = vec![gid];
        }
        Ok(account)
    }

    fn user(&self, user: &str) -> Result<Account, AccountError> {
        let number: Option<u32> = user.parse().ok();
        let text = match fs::read(&self.passwd) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(_) if number.is_some() => String::new(),
            Err(source) => {
                return Err(AccountError::Unreadable { name: user.to_owned(), file: self.passwd.clone(), source });
            }
        };
        let line = text.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let [name, _, uid, gid, _, home, shell, ..] = fields[..] else {
                return None;
            };
            let (uid, gid): (u32, u32) = (uid.parse().ok()?, gid.parse().ok()?);
            // A name of digits wins over the number, as in Docker.
            (name == user || number == Some(uid)).then(|| (name.to_owned(), uid, gid, home.into(), shell.into()))
        });
        let (name, uid, gid, home, shell): (String, u32, u32, PathBuf, PathBuf) = match (line, number) {
            (Some(line), _) => line,
            (None, Some(number)) => (user.to_owned(), number, number, PathBuf::from("/"), PathBuf::from("/bin/sh")),
            (None, None) => {
                return Err(AccountError::Unknown { kind: "user", name: user.to_owned(), file: self.passwd.clone() });
            }
        };
        let gid = Gid::from_raw(gid);
        let mut groups = vec![gid];
        groups.extend(self.groups_of(&name).into_iter().filter(|group| *group != gid));
        Ok(Account { name, identity: Identity { uid: Uid::from_raw(uid), gid, groups }, home, shell })
    }

    fn group(&self, group: &str) -> Result<Gid, AccountError> {
        if let Ok(number) = group.parse() {
            return Ok(Gid::from_raw(number));
        }
        let text = fs::read(&self.group).map_err(|source| AccountError::Unreadable {
            name: group.to_owned(),
            file: self.group.clone(),
            source,
        })?;
        String::from_utf8_lossy(&text)
            .lines()
            .find_map(|line| {
                let (name, rest) = line.split_once(':')?;
                (name == group).then(|| rest.split(':').nth(1)?.parse().ok().map(Gid::from_raw))?
            })
            .ok_or_else(|| AccountError::Unknown { kind: "group", name: group.to_owned(), file: self.group.clone() })
    }

    fn groups_of(&self, user: &str) -> Vec<Gid> {
        let Ok(text) = fs::read(&self.group) else {
            return Vec::new();
        };
        String::from_utf8_lossy(&text)
            .lines()
            .filter_map(|line| {
                let fields: Vec<&str> = line.split(':').collect();
                let [_, _, gid, members, ..] = fields[..] else {
                    return None;
                };
                members.split(',').any(|member| member == user).then(|| gid.parse().ok().map(Gid::from_raw))?
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn accounts() -> (tempfile::TempDir, Accounts) {
        let directory = tempfile::tempdir().unwrap();
        let passwd = "root:x:0:0:root:/root:/bin/bash\nrunner:x:1001:1001::/home/runner:/bin/bash\nbroken\n";
        let group = "root:x:0:\ndialout:x:20:other,runner\nplugdev:x:46:runner\nrunner:x:1001:\n";
        fs::write(directory.path().join("passwd"), passwd).unwrap();
        fs::write(directory.path().join("group"), group).unwrap();
        let accounts = Accounts::below(directory.path());
        (directory, accounts)
    }

    fn raw(groups: &[Gid]) -> Vec<u32> {
        groups.iter().map(|gid| gid.as_raw()).collect()
    }

    #[test]
    fn a_name_brings_its_supplementary_groups() {
        let (_directory, accounts) = accounts();
        let runner = accounts.resolve("runner").unwrap();
        assert_eq!(runner.identity.uid.as_raw(), 1001);
        assert_eq!(raw(&runner.identity.groups), [1001, 20, 46]);
        assert_eq!(runner.home, PathBuf::from("/home/runner"));
    }

    #[test]
    fn a_number_with_an_entry_is_that_user_and_one_without_needs_no_file() {
        let (_directory, accounts) = accounts();
        assert_eq!(accounts.resolve("1001").unwrap().name, "runner");
        let nobody_knows = Accounts::below(Path::new("/nonexistent")).resolve("4711").unwrap();
        assert_eq!(nobody_knows.identity.uid.as_raw(), 4711);
        assert_eq!(raw(&nobody_knows.identity.groups), [4711]);
    }

    #[test]
    fn an_explicit_group_replaces_all_others() {
        let (_directory, accounts) = accounts();
        let runner = accounts.resolve("runner:dialout").unwrap();
        assert_eq!(runner.identity.gid.as_raw(), 20);
        assert_eq!(raw(&runner.identity.groups), [20]);
        assert_eq!(accounts.resolve("0:0").unwrap().identity.gid.as_raw(), 0);
    }

    #[test]
    fn an_unknown_name_says_which_file_was_read() {
        let (directory, accounts) = accounts();
        let message = accounts.resolve("nobody").unwrap_err().to_string();
        assert!(
            message.contains("no user nobody") && message.contains(&*directory.path().to_string_lossy()),
            "{message}"
        );
        assert!(accounts.resolve("runner:wheel").unwrap_err().to_string().contains("no group wheel"));
        assert!(accounts.resolve("runner:").is_err());
    }

    #[test]
    fn fuzz_accounts() {
        let directory = tempfile::tempdir().unwrap();
        crate::fuzz::run("accounts", |bytes| {
            fs::write(directory.path().join("passwd"), bytes).unwrap();
            fs::write(directory.path().join("group"), bytes).unwrap();
            let accounts = Accounts::below(directory.path());
            ["runner", "0", "1001", "runner:docker", "nobody:0", ":"].map(|spec| {
                accounts
                    .resolve(spec)
                    .map(|account| account.identity.groups.len().min(5))
                    .map_err(|error| crate::fuzz::kind(&error.to_string()))
            })
        });
    }
}
