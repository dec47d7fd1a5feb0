//! Capabilities: what root may do, in pieces.

use std::fmt;
use std::io;

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set, remove_capability_from_bounding_set,
    set_capabilities,
};

/// The kernel's names, by number (`include/uapi/linux/capability.h`), without `CAP_`.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// A set of capabilities: bit n stands for capability n, as in `/proc/<pid>/status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Capabilities(u64);

impl Capabilities {
    /// No capability.
    pub(crate) const NONE: Self = Self(0);

    /// The set that consists of these names. An unknown one counts as none.
    #[must_use]
    pub(crate) fn of(names: &[&str]) -> Self {
        let known = NAMES.iter().enumerate().filter(|(_, name)| names.contains(name));
        Self(known.fold(0, |set, (number, _)| set | 1 << number))
    }

    /// The set of a line of `/proc/<pid>/status`: hexadecimal digits.
    #[must_use]
    pub(crate) fn parse(text: &str) -> Option<Self> {
        u64::from_str_radix(text.trim(), 16).ok().map(Self)
    }

    /// Whether there is none in it.
    #[must_use]
    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// What is in this set and not in `other`.
    #[must_use]
    pub(crate) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// What is in both sets.
    #[must_use]
    pub(crate) fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The names, in the kernel's order. One that is newer than this list is a number.
    #[must_use]
    pub(crate) fn names(self) -> Vec<String> {
        (0..64)
            .filter(|number| self.0 & (1 << number) != 0)
            .map(|number| NAMES.get(number).map_or_else(|| number.to_string(), |name| (*name).to_owned()))
            .collect()
    }
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() { f.write_str("none") } else { f.write_str(&self.names().join(" ")) }
    }
}

/// What this thread may use.
///
/// # Errors
/// Never in practice: the arguments are valid.
pub(crate) fn permitted() -> io::Result<Capabilities> {
    Ok(Capabilities(capabilities(None)?.permitted.bits()))
}

/// Whether a program of root's that this process starts can be given this capability.
#[must_use]
pub(crate) fn can_be_given(name: &str) -> bool {
    capability_is_in_bounding_set(CapabilitySet::from_bits_retain(Capabilities::of(&[name]).0)).unwrap_or(false)
}

/// Gives up, for good, everything that this thread may use but for what is in `keep`; nothing is handed on through `exec` by way
/// of the inheritable and ambient sets any more. The caller has one thread: others would keep what they have. Allocates
/// nothing, so that it serves between `fork` and `exec` too.
///
/// # Errors
/// Never in practice: giving up is always allowed.
pub(crate) fn limit(keep: Capabilities) -> io::Result<()> {
    let kept = CapabilitySet::from_bits_retain(permitted()?.and(keep).0);
    // The ambient set never exceeds the inheritable one: the kernel empties it with this.
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    Ok(set_capabilities(None, sets)?)
}

/// Empties the bounding set, so that no program, whoever owns it, brings a capability back. Allocates nothing.
///
/// # Errors
/// `EPERM` without the capability SETPCAP, unless the set was empty before; nothing is changed then.
pub(crate) fn empty_bounding_set() -> io::Result<()> {
    for number in 0..64 {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        match capability_is_in_bounding_set(capability) {
            Ok(true) => remove_capability_from_bounding_set(capability)?,
            Ok(false) => {}
            // No capability to this kernel, nor is any above it.
            Err(_) => break,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_the_kernels_numbers_and_names() {
        assert_eq!(Capabilities::parse("00000000000000eb"), Some(Capabilities(0xeb)));
        let six = Capabilities::of(&["CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "SETGID", "SETUID"]);
        assert_eq!(six, Capabilities(0xeb));
        assert_eq!(six.to_string(), "CHOWN DAC_OVERRIDE FOWNER KILL SETGID SETUID");
        assert_eq!(Capabilities::of(&["SYS_ADMIN"]), Capabilities(1 << 21));
        assert_eq!(Capabilities::of(&["CHECKPOINT_RESTORE"]), Capabilities(1 << 40));
        assert_eq!(Capabilities(1 << 50).names(), ["50"]);
        assert_eq!(Capabilities::NONE.to_string(), "none");
        assert_eq!(Capabilities::parse("none"), None);
        assert_eq!(six.without(Capabilities::of(&["KILL"])).and(Capabilities(0x21)), Capabilities(1));
    }

    #[test]
    fn what_a_thread_gives_up_is_gone_and_others_keep_theirs() {
        let before = permitted().unwrap();
        std::thread::spawn(|| {
            limit(Capabilities::of(&["CHOWN"])).unwrap();
            assert!(permitted().unwrap().without(Capabilities::of(&["CHOWN"])).is_empty());
            limit(Capabilities::NONE).unwrap();
            assert!(permitted().unwrap().is_empty());
            // Without SETPCAP the bounding set stays, unless it is empty already.
            let _ = empty_bounding_set();
        })
        .join()
        .unwrap();
        assert_eq!(permitted().unwrap(), before);
    }
}
