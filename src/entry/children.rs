//! Signals and children of this process, as events of the life cycle.
//!
//! One task reads all signals in order. For SIGCHLD it reaps everything that can be reaped, and hands the ends of the
//! children that somebody waits for to whoever waits; the rest were orphans of a job, and reaping them was all they needed.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::sync::oneshot;

use super::stop::Stop;
use crate::agent::output::{Relay, Tail};
use crate::agent::words::{LineReader, Marker, Voice};
use crate::init::spawn::{SpawnError, spawn};
use crate::init::{Change, Ended, Signals, Spawn, reap};
use crate::os;
use crate::os::Identity;
use crate::os::child::{ChildSession, Setup};
use crate::os::signal::SignalSet;
use crate::provider::{AgentFacts, Step};

/// Those who wait for a child.
#[derive(Debug, Clone, Default)]
pub(super) struct Children {
    waiting: Rc<RefCell<HashMap<Pid, oneshot::Sender<Ended>>>>,
}

/// A command of the agent that was started.
#[derive(Debug)]
pub(super) struct Running {
    /// Its process id. Signals may be sent to it until `ended` has resolved.
    pub pid: Pid,
    /// Its last lines.
    pub tail: Tail,
    working: Rc<Cell<bool>>,
    ended: oneshot::Receiver<Ended>,
}

impl Running {
    /// Waits for its end. Safe to drop and call again.
    pub(super) async fn ended(&mut self) -> Ended {
        // The sender is dropped only with the whole process; waiting for ever is then what is left to do.
        match (&mut self.ended).await {
            Ok(ended) => ended,
            Err(_) => std::future::pending().await,
        }
    }

    /// Whether a worker of it lives, so that its output may be a job's.
    pub(super) fn works(&self, works: bool) {
        self.working.set(works);
    }

    /// Sends it a signal; it may be gone already.
    pub(super) fn signal(&self, signal: Signal) {
        let _ = nix::sys::signal::kill(self.pid, signal);
    }
}

/// How the agent's processes are started.
#[derive(Debug, Clone)]
pub(super) struct Starter {
    children: Children,
    /// The user to become; `None` when we are not root and the agent runs as ourselves.
    pub identity: Option<Identity>,
    /// The agent's environment, without the secrets of a step.
    pub env: Vec<(OsString, OsString)>,
    /// The agent.
    pub facts: &'static AgentFacts,
    /// Whether sudo may give jobs the privileges of root in the container.
    pub sudo: bool,
}

impl Starter {
    /// A starter whose children are reaped by the task that knows `children`.
    #[must_use]
    pub(super) fn new(
        children: Children,
        identity: Option<Identity>,
        env: Vec<(OsString, OsString)>,
        facts: &'static AgentFacts,
        sudo: bool,
    ) -> Self {
        Self { children, identity, env, facts, sudo }
    }

    /// Starts one command of the agent in its `root`: own session, clean signals, no privileges but those that sudo gives
    /// where the image has it, output relayed in this manner. What the output says comes through the channel.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) fn start(
        &self,
        directory: &Path,
        step: &Step,
        manner: Voice,
    ) -> Result<(Running, UnboundedReceiver<Marker>), SpawnError> {
        let mut env = self.env.clone();
        env.extend(step.secrets.iter().map(|(name, secret)| ((*name).into(), secret.expose().into())));
        if let Some(variable) = self.facts.unpublished {
            keep_unpublished(&mut env, variable);
        }
        let what = Spawn {
            program: directory.join(step.program).into_os_string(),
            args: step.args.iter().map(Into::into).collect(),
            env: Some(env),
            directory: Some(directory.to_owned()),
            captured: true,
        };
        self.launch_as("agent", manner, &what, self.unprivileged())
    }

    /// Starts any command as the agent's user, in the same way.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) fn command(
        &self,
        program: OsString,
        args: Vec<OsString>,
        env: Vec<(OsString, OsString)>,
    ) -> Result<Running, SpawnError> {
        let what = Spawn { program, args, env: Some(env), directory: Some("/".into()), captured: true };
        self.launch(&what, self.unprivileged())
    }

    /// Starts this very program, with a hidden command, as the agent's user.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) fn ourselves(&self, arguments: &[impl AsRef<OsStr>]) -> Result<Running, SpawnError> {
        let what = Spawn {
            program: "/proc/self/exe".into(),
            args: arguments.iter().map(|argument| argument.as_ref().into()).collect(),
            env: Some(Vec::new()),
            directory: Some("/".into()),
            captured: true,
        };
        self.launch(&what, self.unprivileged())
    }

    fn unprivileged(&self) -> Setup {
        Setup {
            session: ChildSession::Own,
            directory: None,
            identity: self.identity.clone(),
            mask: SignalSet::EMPTY,
            ignored: None,
            umask: None,
            no_new_privs: !self.sudo,
            no_capabilities: !self.sudo,
            parent_death: None,
            keep: Vec::new(),
            own_id: None,
        }
    }

    /// Starts a child whose end is reported to the returned handle.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) fn launch(&self, what: &Spawn, setup: Setup) -> Result<Running, SpawnError> {
        Ok(self.launch_as("agent", Voice::Other, what, setup)?.0)
    }

    /// Starts Docker's engine: as ourselves, with all that the container may give it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) fn engine(
        &self,
        arguments: Vec<OsString>,
        env: Vec<(OsString, OsString)>,
    ) -> Result<Running, SpawnError> {
        let what = Spawn {
            program: "dockerd".into(),
            args: arguments,
            env: Some(env),
            directory: Some("/".into()),
            captured: true,
        };
        let setup = Setup { identity: None, no_new_privs: false, no_capabilities: false, ..self.unprivileged() };
        Ok(self.launch_as("dockerd", Voice::Other, &what, setup)?.0)
    }

    fn launch_as(
        &self,
        speaker: &'static str,
        manner: Voice,
        what: &Spawn,
        setup: Setup,
    ) -> Result<(Running, UnboundedReceiver<Marker>), SpawnError> {
        let started = spawn(what, setup)?;
        // No await since the child was made, so its end cannot have been reaped before we wait for it.
        let (sender, ended) = oneshot::channel();
        self.children.waiting.borrow_mut().insert(started.pid, sender);
        let (markers, receiver) = mpsc::unbounded_channel();
        let (tail, working) = (Tail::default(), Rc::new(Cell::new(false)));
        if let Some((stdout, stderr)) = started.output {
            let pipes = [OwnedFd::from(stdout), OwnedFd::from(stderr)];
            for (pipe, reader) in pipes.into_iter().zip(LineReader::pair(self.facts, manner)) {
                let (markers, tail, working) = (markers.clone(), tail.clone(), Rc::clone(&working));
                tokio::task::spawn_local(Relay { speaker, reader, working, markers, tail }.run(pipe));
            }
        }
        Ok((Running { pid: started.pid, tail, working, ended }, receiver))
    }
}

/// Names every variable of the agent's environment in the one that lists what it must not publish, besides what is there.
fn keep_unpublished(env: &mut Vec<(OsString, OsString)>, variable: &str) {
    let mut names: Vec<OsString> = env.iter().map(|(name, _)| name.clone()).collect();
    if let Some(at) = env.iter().position(|(name, _)| name == variable) {
        names.push(env.remove(at).1);
    } else {
        names.push(variable.into());
    }
    env.push((variable.into(), names.join(",".as_ref())));
}

/// Reads signals for ever: reaps, and turns stop signals into requests.
pub(super) async fn attend(signals: Signals, children: Children, stop: Stop) -> io::Result<()> {
    let readable = os::watch(signals.descriptor()?)?;
    loop {
        let mut ready = readable.readable().await?;
        while let Some(caught) = signals.next()? {
            if caught.is_child() {
                for change in reap() {
                    if let Change::Ended(pid, ended) = change
                        && let Some(waiting) = children.waiting.borrow_mut().remove(&pid)
                    {
                        let _ = waiting.send(ended);
                    }
                }
                continue;
            }
            match Signal::try_from(caught.number) {
                Ok(Signal::SIGTERM | Signal::SIGINT | Signal::SIGQUIT) => match stop.signal() {
                    1 => tracing::info!("asked to stop: no new job; a second signal cancels the running one"),
                    2 => tracing::warn!("asked to stop again: cancelling"),
                    _ => {}
                },
                Ok(Signal::SIGUSR1) => {
                    tracing::info!("asked to drain (SIGUSR1)");
                    stop.drain(false);
                }
                Ok(other) => tracing::debug!("{other} is of no concern here"),
                Err(_) => {}
            }
        }
        ready.clear_ready();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_that_publishes_its_environment_is_told_to_keep_all_of_it() {
        let pairs = |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| (a.into(), b.into())).collect::<Vec<_>>();
        let mut env = pairs(&[("PATH", "/bin"), ("HOME", "/h")]);
        keep_unpublished(&mut env, "IGNORE");
        assert_eq!(env[2], ("IGNORE".into(), "PATH,HOME,IGNORE".into()));
        let mut env = pairs(&[("IGNORE", "MINE,OTHERS"), ("PATH", "/bin")]);
        keep_unpublished(&mut env, "IGNORE");
        assert_eq!(env, pairs(&[("PATH", "/bin"), ("IGNORE", "IGNORE,PATH,MINE,OTHERS")]));
    }
}
