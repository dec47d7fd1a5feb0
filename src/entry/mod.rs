//! The life of an incarnation: from the environment to an exit code.
//!
//! [`run`] proves the configuration and sets up what every phase needs; [`incarnation`] tells the story.

mod accounts;
mod admission;
mod backoff;
mod baseline;
mod by_proxy;
mod cancelling;
mod check;
mod children;
mod cleaning;
mod complain;
mod configuration;
mod cut_off;
mod docker;
mod docker_findings;
mod doctor;
mod doubt;
mod emptying;
mod ended_by;
mod ending;
mod gate;
mod ghosts;
mod ground;
mod hardware;
mod hearing;
mod held_back;
mod in_use;
mod incarnation;
mod job;
mod judge;
mod later;
mod listening;
mod means;
mod noexec;
mod numbers;
mod open_job;
mod orders;
mod outside;
mod patience;
pub mod posture;
mod precious;
mod private;
mod privileges;
mod proof;
mod registering;
mod registrar;
mod report;
mod retiring;
mod routes;
mod schedule;
mod secrets;
mod session;
mod set_aside;
mod set_up;
mod setup;
mod silent;
mod space;
mod state;
mod stop;
mod stopped;
mod teardown;
mod trial;
mod trust;
mod update;
mod volume_notes;
mod watchdog;
mod way_out;
mod withdrawal;
mod work;

use std::process::ExitCode;

use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

pub use self::baseline::baseline;
pub use self::check::check;
use self::complain::{fatal, misconfigured};
pub use self::doctor::doctor;
use self::proof::invisible;
use self::setup::Prepared;
use self::silent::configure_in_time;
use crate::agent::worker;
use crate::config::{Environment, Problem};
use crate::exit;
use crate::init::Signals;
use crate::log;
use crate::provider::Forges;

/// `oscr-entry run`: one incarnation of a runner for one of these forges.
#[must_use]
pub fn run(forges: Forges, signals: Signals) -> ExitCode {
    // From here on not even root in the container may look into this process, and no core dump is made of it. An execution
    // undoes the former, so this is also the first thing that our next self does.
    if let Err(error) = prctl::set_dumpable(false).and_then(|()| no_core_dumps()) {
        return fatal(&format!("this process cannot be protected from others: {error}"), exit::SOFTWARE);
    }
    if let Err(blind) = worker::prove_mounted() {
        return misconfigured(&[Problem::of("/proc", &blind, blind.cure())]);
    }
    let variables = match secrets::environment_without_trace(forges) {
        Ok(variables) => variables,
        Err(error) => {
            return fatal(&format!("the environment cannot be taken over: {error}"), exit::SOFTWARE);
        }
    };
    let environment = Environment::new(variables);
    let configured = match configure_in_time(forges, &environment) {
        Ok(configured) => configured,
        Err(problems) => return misconfigured(&problems),
    };
    log::start(configured.common.log_format, configured.common.log_level);
    let prepared = match Prepared::new(forges, &environment, configured) {
        Ok(prepared) => prepared,
        Err(problems) => return misconfigured(&problems),
    };
    if let Err(error) = privileges::give_up(prepared.common.sudo, prepared.common.docker.engine.is_some()) {
        return fatal(&format!("capabilities cannot be given up: {error}"), exit::SOFTWARE);
    }
    // As it is from now on.
    if let Some(problem) = invisible(prepared.identity.as_ref()) {
        return misconfigured(&[problem]);
    }
    // Before the runtime, which it outlives.
    let _unhurried = log::unhurried();
    prepared.say_posture(&secrets::given(forges, &environment));
    // It holds what was given as plain variables.
    drop(environment);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return fatal(&format!("the event loop cannot be made: {error}"), exit::SOFTWARE);
        }
    };
    let code = tokio::task::LocalSet::new().block_on(&runtime, prepared.live(signals));
    ExitCode::from(code)
}

/// Sets the soft limit alone: a job that wants to look into a crash of its own may raise it again.
fn no_core_dumps() -> nix::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_CORE)?;
    setrlimit(Resource::RLIMIT_CORE, 0, hard)
}
