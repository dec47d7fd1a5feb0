//! OSCR turns a container into one ephemeral, self-cleaning CI runner.
//!
//! The binary `oscr-entry` is PID 1 of the container. It registers the official agent of a forge, runs it as an
//! unprivileged user, lets a running job finish when it is told to stop, removes the registration, wipes what the job
//! left, and exits. `restart: always` does the rest.
//!
//! A reader finds their way from here, from the top of the house to the bottom:
//!
//! | module | what lives there |
//! | --- | --- |
//! | `cli` | the command line: `run`, `exec`, `hook`, `health`, `status`, `drain`, `lock`, `doctor`, `check` |
//! | `entry` | the life of an incarnation, from start to exit |
//! | `agent` | the agent as a child: its root directory, environment, output, worker, hooks |
//! | `provider` | what differs between forges, and the one HTTP client |
//! | `control` | the socket between PID 1 and the other commands, and the status that is read there |
//! | `config` | the environment becomes one typed configuration, once |
//! | `policy` | which jobs may run |
//! | `docker` | Docker for jobs: waiting for it, sweeping what dead jobs left, an engine of our own |
//! | `resource` | shared hardware: tickets, holders, locks |
//! | `workspace` | wiping and restoring: the clean slate |
//! | `metrics` | numbers for whoever watches many runners |
//! | `init` | what PID 1 owes the kernel: spawning, signals, reaping, accounts |
//! | `log` | one line per event, secrets replaced |
//! | `names` | addresses of hosts |
//! | `files` | files that are replaced in one step |
//! | `encode` | digests and times as others read them |
//! | `exit` | exit codes |
//! | `os` | system calls without a safe wrapper elsewhere; the only `unsafe` |
//!
//! Each uses what stands below it and nothing above.

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
