//! OSCR turns a container into one ephemeral, self-cleaning CI runner.
//!
//! The binary `oscr-entry` is PID 1 of the container. It registers the official agent of a forge, runs it as an
//! unprivileged user, lets a running job finish when it is told to stop, removes the registration, wipes what the job
//! left, and exits. `restart: always` does the rest.
//!
//! A reader finds their way from here:
//!
//! <!-- modules -->
//!
//! | module | what lives there |
//! | --- | --- |
//! | [`cli`] | The command line |
//! | [`entry`] | The life of an incarnation: from the environment to an exit code |
//! | [`agent`] | The agent as a child of PID 1: its directory, its environment, its output, its worker, and the hooks around a job |
//! | [`provider`] | What differs between forges |
//! | [`control`] | The socket between PID 1 and the other commands of the same binary: `hook`, `health`, `status`, `drain` |
//! | [`config`] | The environment becomes one typed configuration, once, before anything else happens |
//! | [`policy`] | Which jobs may run here |
//! | [`docker`] | Docker for jobs: where it is, whether it answers, and what dead jobs left there |
//! | [`resource`] | Shared hardware: one holder at a time, first come, first served, across containers and organisations that share one lock directory of the host |
//! | [`workspace`] | The clean slate: places that a job can write are emptied and restored, so that no job finds anything of an earlier one |
//! | [`metrics`] | Numbers for whoever watches many runners: counted here, written as Prometheus text |
//! | [`init`] | What PID 1 owes the kernel, in one place for `run` and `exec`: start a child in a well-defined state, read signals in order, reap everything, and turn a wait status into an exit code |
//! | [`log`] | One line per event on standard output, as text or JSON, each with the phase and the runner's name |
//! | [`resolver`] | The addresses of hosts: `/etc/hosts` decides for the names that it has, the name servers of `/etc/resolv.conf` for all others, as in the C library |
//! | [`files`] | Files that are replaced in one step: whoever reads finds the old one or the new one, whole |
//! | [`encode`] | Digests and times as others read them |
//! | [`shown`] | What of a value may stand in a message: all of it but the secrets that people put where they do not belong |
//! | [`plain`] | Others' words, freed of what disturbs the line or the screen that shows them |
//! | [`print`] | Standard output and error of the commands that people and scripts call, who may stop reading when they have seen enough |
//! | [`os`] | System calls that neither the standard library nor nix wraps safely, each in one small function |
//! | [`exit`] | Exit codes, after `sysexits.h` where it has one |
//!
//! <!-- /modules -->
//!
//! Dependencies point downward only: `entry` knows the others, a provider knows `config` and its HTTP client, and
//! nothing but `os` contains `unsafe`.

#![deny(unsafe_code)]
#![warn(unreachable_pub)]

pub mod agent;
pub mod cli;
pub mod config;
pub mod control;
pub mod docker;
pub(crate) mod encode;
pub mod entry;
pub mod exit;
pub(crate) mod files;
#[cfg(test)]
mod fuzz;
pub mod init;
pub(crate) mod log;
pub mod metrics;
pub mod os;
pub(crate) mod plain;
pub mod policy;
pub(crate) mod print;
pub mod provider;
pub(crate) mod resolver;
pub mod resource;
pub(crate) mod shown;
pub mod workspace;
