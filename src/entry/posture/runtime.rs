//! Which kind of runtime made this container, by what each leaves to be seen inside.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::os::mounts::Mount;

/// A kind of container runtime, by what it puts between a job and the host's kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Runtime {
    /// runc, crun, or another one without a tell-tale: jobs talk to the host's kernel.
    Runc,
    /// Sysbox: the host's kernel, a user namespace, and files of `/proc` and `/sys` that it emulates.
    Sysbox,
    /// gVisor (`runsc`): a kernel of its own in user space.
    Gvisor,
    /// Kata Containers: a virtual machine.
    Kata,
    /// libkrun (`krun`): a small virtual machine.
    Krun,
}

impl Runtime {
    /// Tells from the list of mounts, `/proc/version` and `/proc/cmdline`. gVisor reports a kernel that it calls so, or else the
    /// same made-up build since 2016; Kata shares the host's files by a file system with the tag `kataShared` and boots into a
    /// target of its own; libkrun boots into `/init.krun`; Sysbox mounts `sysboxfs`.
    #[must_use]
    pub fn detect(mounts: &[Mount], version: &str, command_line: &str) -> Self {
        let mounted = |source: &str| mounts.iter().any(|mount| mount.source.split('[').next() == Some(source));
        let booted = |part: &str| command_line.split_whitespace().any(|word| word.contains(part));
        let version = version.to_ascii_lowercase();
        if version.contains("gvisor") || version.contains("4.4.0 #1 smp sun jan 10 15:06:54 pst 2016") {
            Self::Gvisor
        } else if mounted("kataShared") || booted("kata-containers.target") {
            Self::Kata
        } else if booted("init=/init.krun") {
            Self::Krun
        } else if mounted("sysboxfs") {
            Self::Sysbox
        } else {
            Self::Runc
        }
    }
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Runc => "runc or alike: jobs share the host's kernel",
            Self::Sysbox => "Sysbox: jobs share the host's kernel, in a user namespace",
            Self::Gvisor => "gVisor: jobs have a kernel of their own, in user space",
            Self::Kata => "Kata Containers: jobs are in a virtual machine",
            Self::Krun => "krun: jobs are in a virtual machine",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::mounts::parse;

    #[test]
    fn each_runtime_is_known_by_its_tell_tale() {
        const HOST: &str = "Linux version 6.8.0-45-generic (buildd@x) #45-Ubuntu SMP PREEMPT_DYNAMIC";
        const BOOTED: &str = "BOOT_IMAGE=/vmlinuz root=/dev/sda1 ro quiet";
        let docker = parse(include_bytes!("fixtures/mountinfo-docker"));
        let sysbox = parse(include_bytes!("fixtures/mountinfo-sysbox"));
        let kata = parse(include_bytes!("fixtures/mountinfo-kata"));
        for (mounts, version, command_line, runtime) in [
            (&docker, HOST, BOOTED, Runtime::Runc),
            // A real kernel of that age is not gVisor's.
            (&docker, "Linux version 4.4.0-210-generic (buildd@x) #242-Ubuntu SMP", BOOTED, Runtime::Runc),
            (&docker, "Linux version 4.4.0 #1 SMP Sun Jan 10 15:06:54 PST 2016", "", Runtime::Gvisor),
            (&docker, "Linux version 4.19.0-gvisor #1 SMP", "", Runtime::Gvisor),
            (&kata, HOST, "quiet", Runtime::Kata),
            (&docker, HOST, "quiet systemd.unit=kata-containers.target agent.log=debug", Runtime::Kata),
            (&docker, HOST, "reboot=k panic=-1 rootfstype=virtiofs rw init=/init.krun", Runtime::Krun),
            (&sysbox, HOST, BOOTED, Runtime::Sysbox),
        ] {
            assert_eq!(Runtime::detect(mounts, version, command_line), runtime, "{version} {command_line}");
        }
    }
}
