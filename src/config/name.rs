//! The runner's name.

use super::reader::Reader;
use crate::shown::{quoted, shown};

/// The longest name that forges accept, in characters.
const LONGEST: usize = 64;

/// How an incarnation gets its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Naming {
    /// `prefix-<hostname>-<4 hex>`: new for each incarnation, because a forge may still hold a session of the last one.
    Fresh {
        /// What stands first.
        prefix: String,
        /// The container's host name.
        hostname: String,
    },
    /// Always the same.
    Fixed(String),
}

impl Naming {
    /// Reads the settings about names.
    pub(crate) fn read(reader: &mut Reader<'_>) -> Self {
        let allowed = reader.flag("OSCR_ALLOW_FIXED_NAME").unwrap_or(false);
        let prefix = reader.text("RUNNER_NAME_PREFIX");
        if let Some(name) = reader.text("RUNNER_NAME") {
            if !allowed {
                reader.problem(
                    "RUNNER_NAME",
                    "replicas with one name take each other's registration",
                    "use RUNNER_NAME_PREFIX, or set OSCR_ALLOW_FIXED_NAME=true if only one container has this name",
                );
            }
            if prefix.is_some() {
                reader.problem("RUNNER_NAME", "and RUNNER_NAME_PREFIX exclude each other", "keep one of them");
            }
            check(reader, "RUNNER_NAME", &name, LONGEST);
            return Self::Fixed(name);
        }
        let prefix = prefix.or_else(|| microsofts(reader)).unwrap_or_else(|| "oscr".to_owned());
        check(reader, "RUNNER_NAME_PREFIX", &prefix, 40);
        Self::Fresh { prefix, hostname: hostname() }
    }

    /// What all names of this kind begin with, if they have that in common and nothing more.
    #[must_use]
    pub(crate) fn prefix(&self) -> Option<&str> {
        match self {
            Self::Fresh { prefix, .. } => Some(prefix),
            Self::Fixed(_) => None,
        }
    }

    /// The name of the next incarnation, with four hexadecimal digits from `entropy` in it.
    #[must_use]
    pub(crate) fn next(&self, entropy: u16) -> String {
        match self {
            Self::Fixed(name) => name.clone(),
            Self::Fresh { prefix, hostname } => {
                let room = LONGEST - prefix.chars().count() - "--0000".len();
                let host: String = hostname.chars().filter(|c| is_plain(*c)).take(room.min(40)).collect();
                let host = if host.is_empty() { "host".to_owned() } else { host };
                format!("{prefix}-{host}-{entropy:04x}")
            }
        }
    }

    /// Four random hexadecimal digits' worth of entropy.
    #[must_use]
    pub(crate) fn entropy() -> u16 {
        getrandom::u32().unwrap_or_else(|_| std::process::id()) as u16
    }
}

/// The container's host name; empty if it has none that is text.
#[must_use]
pub(crate) fn hostname() -> String {
    nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default()
}

/// The name that Microsoft's container is given. It is the same for each life of the container, which makes a restarted
/// agent take the name of one that the forge still lists: so it is where new names begin.
fn microsofts(reader: &mut Reader<'_>) -> Option<String> {
    let name = reader.foreign("AZP_AGENT_NAME")?;
    let words: Vec<String> = shown(&name)
        .split(|c: char| !is_plain(c) || c == '-')
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect();
    let prefix: String = words.join("-").trim_start_matches('.').chars().take(40).collect();
    reader.note(format!(
        "AZP_AGENT_NAME was read as RUNNER_NAME_PREFIX={prefix}: each incarnation has a name of its own"
    ));
    (!prefix.is_empty()).then_some(prefix)
}

fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

fn check(reader: &mut Reader<'_>, setting: &str, name: &str, longest: usize) {
    if !name.chars().all(is_plain) || name.len() > longest || name.starts_with(['-', '.']) {
        reader.problem(
            setting,
            format!("{} is no name for a runner", quoted(name)),
            format!("use at most {longest} letters, digits, dots, dashes and underscores"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_prefix_host_and_four_digits_and_fits() {
        let naming = Naming::Fresh { prefix: "oscr".to_owned(), hostname: "f3a9".to_owned() };
        assert_eq!(naming.next(0x00ab), "oscr-f3a9-00ab");
        let naming = Naming::Fresh { prefix: "p".repeat(40), hostname: "h".repeat(63) };
        assert_eq!(naming.next(1).len(), LONGEST);
    }
}
