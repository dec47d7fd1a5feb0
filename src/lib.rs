//! OSCR turns a container into one ephemeral, self-cleaning CI runner.
//!
//! The binary `oscr-entry` is PID 1 of the container. It registers the official agent of a forge, runs it as an
//! unprivileged user, lets a running job finish when it is told to stop, removes the registration, wipes what the job
//! left, and exits. `restart: always` does the rest.
//!
//! A reader finds their way from here:
//!
//! | module | what lives there |
//! | --- | --- |
//! | [`cli`] | the command line: `run`, `exec`, `hook`, `health`, `status`, `drain`, `check` |
//! | [`config`] | the environment becomes one typed configuration, once |
//! | [`entry`] | the life of an incarnation, from start to exit |
//! | [`provider`] | what differs between forges, and the one HTTP client |
//! | [`policy`] | which jobs may run |
//! | [`agent`] | the agent as a child: its root directory, account, environment, output, worker, hooks |
//! | [`docker`] | Docker for jobs: waiting for it, sweeping what dead jobs left, an engine of our own |
//! | [`init`] | what PID 1 owes the kernel: spawning, signals, reaping, exit codes |
//! | [`resource`] | shared hardware: tickets, holders, locks |
//! | [`workspace`] | wiping and restoring: the clean slate |
//! | [`metrics`] | numbers for whoever watches many runners |
//! | [`control`] | the socket between PID 1 and the other commands |
//! | [`exit`] | exit codes |
//! | [`encode`] | digests and times as others read them |
//! | [`files`] | files that are replaced in one step |
//! | [`os`] | system calls without a safe wrapper elsewhere; the only `unsafe` |
//!
//! Dependencies point downward only: `entry` knows the others, a provider knows `config` and its HTTP client, and
//! nothing but `os` contains `unsafe`.

#![deny(unsafe_code)]

pub mod agent;
pub mod cli;
pub mod config;
pub mod control;
pub mod docker;
mod encode;
pub mod entry;
pub mod exit;
mod files;
#[cfg(test)]
mod fuzz;
pub mod init;
mod log;
pub mod metrics;
mod names;
pub mod os;
mod policy;
pub mod provider;
pub mod resource;
pub mod workspace;
