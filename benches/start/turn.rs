//! One start or one cycle, taken apart: the parts add up to the whole.

use crate::moments::{Moment, Program};

/// The parts, in seconds, in the order of their columns.
#[derive(Debug, Clone, Copy, Default)]
pub struct Parts {
    /// From the end of the worker to that of the listener.
    pub agent_ends: f64,
    /// From the end of the container's PID 1, or from docker's command, to the `execve` of PID 1.
    pub docker: f64,
    /// Of the agent's configure step.
    pub configure: f64,
    /// From the `execve` of the listener to its session.
    pub listener: f64,
    /// What the forge took to answer PID 1.
    pub forge: f64,
    /// The rest: what the entrypoint does.
    pub entrypoint: f64,
}

impl Parts {
    /// All of it.
    pub fn whole(&self) -> f64 {
        self.all().iter().sum()
    }

    /// When PID 1 began last.
    pub fn init(moments: &[Moment]) -> Option<f64> {
        moments.iter().rfind(|moment| moment.program == Program::Init && moment.begins).map(|moment| moment.at)
    }

    /// As columns.
    pub fn all(&self) -> [f64; 6] {
        [self.agent_ends, self.docker, self.entrypoint, self.forge, self.configure, self.listener]
    }

    /// The turn's parts, from its moments, docker's command or the job's end, the session and the forge's answers; nothing where a
    /// moment is missing.
    pub fn of(moments: &[Moment], begun: Begun, session: f64, answers: &[(f64, f64)]) -> Option<Self> {
        let last = |program, begins, before: f64| {
            let found = moments.iter().filter(|m| m.program == program && m.begins == begins && m.at <= before);
            found.map(|moment| moment.at).next_back()
        };
        let listener = last(Program::Listener, true, session)?;
        let init = last(Program::Init, true, listener)?;
        let configure = match last(Program::Configure, true, listener).filter(|at| *at > init) {
            Some(from) => last(Program::Configure, false, listener)? - from,
            None => 0.0,
        };
        let (agent_ends, end, ended) = match begun {
            Begun::Command(at) => (0.0, 0.0, at),
            Begun::Job => {
                let ended = last(Program::Init, false, init)?;
                let agent = last(Program::Listener, false, ended)?;
                let worker = last(Program::Worker, false, agent)?;
                (agent - worker, ended - agent, ended)
            }
        };
        // Those that came while the entrypoint was at work, before and after Docker's part.
        let since = ended - end;
        let forge = answers.iter().filter(|(came, _)| (since..listener).contains(came)).map(|(came, gone)| gone - came);
        let forge = forge.sum();
        let entrypoint = end + (listener - init) - configure - forge;
        Some(Self { agent_ends, docker: init - ended, configure, listener: session - listener, forge, entrypoint })
    }
}

/// What a turn begins with.
#[derive(Debug, Clone, Copy)]
pub enum Begun {
    /// Docker's command, at this time.
    Command(f64),
    /// The end of a job's worker.
    Job,
}

/// The median of each part: the whole is their sum.
pub fn medians(turns: &[Parts]) -> Parts {
    let middle = |part: fn(&Parts) -> f64| median(turns.iter().map(part));
    Parts {
        agent_ends: middle(|parts| parts.agent_ends),
        docker: middle(|parts| parts.docker),
        configure: middle(|parts| parts.configure),
        listener: middle(|parts| parts.listener),
        forge: middle(|parts| parts.forge),
        entrypoint: middle(|parts| parts.entrypoint),
    }
}

/// The lower one of the middle two, where there are two.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}
