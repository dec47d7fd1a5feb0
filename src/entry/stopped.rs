//! Processes of a job that somebody has stopped. The agent and its jobs are one user, so a job can stop its worker and its
//! listener (SIGSTOP): the forge gives the job up, and here all looks well for ever.

use std::time::Duration;

use nix::unistd::Pid;
use tokio::time::{Instant, sleep_until};

use crate::init::process::Stat;

/// How often they are looked at, from the moment that a job runs to the end of its listener.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// One that was let go on and is stopped again within this time will not be left alone.
pub(super) const AGAIN: Duration = Duration::from_secs(60);

/// When they are looked at, and what was done about them.
#[derive(Debug, Default)]
pub(super) struct Stopped {
    at: Option<Instant>,
    /// When worker and listener were last let go on.
    woken: [Option<Instant>; 2],
}

/// What is to be done about the processes of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remedy {
    /// Nobody stopped it.
    Nothing,
    /// It is to go on.
    GoOn,
    /// It was to, and is stopped again.
    End,
}

impl Stopped {
    /// A job runs: from now on it may stop what runs it.
    pub(super) fn begin(&mut self) {
        self.at.get_or_insert_with(|| Instant::now() + LOOK_EVERY);
    }

    /// Resolves when they should be looked at; never without a job.
    pub(super) async fn time_to_look(&self) {
        match self.at {
            Some(at) => sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    /// What to do about worker and listener, of which these are `stopped` now.
    pub(super) fn look(&mut self, stopped: [bool; 2]) -> [Remedy; 2] {
        let now = Instant::now();
        self.at = Some(now + LOOK_EVERY);
        [0, 1].map(|which| {
            let woken = &mut self.woken[which];
            match (stopped[which], *woken) {
                (false, _) => Remedy::Nothing,
                (true, Some(before)) if now - before <= AGAIN => Remedy::End,
                (true, _) => {
                    *woken = Some(now);
                    Remedy::GoOn
                }
            }
        })
    }
}

/// Whether a process was stopped by a signal. One that a debugger holds is its user's business.
pub(super) fn is_stopped(process: Pid) -> bool {
    Stat::read(process).is_some_and(|stat| stat.state == 'T')
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::{Signal, kill};
    use std::process::Command;
    use tokio::time::advance;

    const NOT: [bool; 2] = [false, false];
    const WORKER: [bool; 2] = [true, false];
    const BOTH: [bool; 2] = [true, true];

    #[tokio::test(start_paused = true)]
    async fn one_that_is_stopped_goes_on_and_is_ended_when_it_is_stopped_again_within_a_minute() {
        let mut stopped = Stopped::default();
        assert_eq!(stopped.look(NOT), [Remedy::Nothing; 2]);
        assert_eq!(stopped.look(WORKER), [Remedy::GoOn, Remedy::Nothing]);
        advance(AGAIN).await;
        assert_eq!(stopped.look(NOT), [Remedy::Nothing; 2]);
        assert_eq!(stopped.look(BOTH), [Remedy::End, Remedy::GoOn], "each has its own time");
        let mut stopped = Stopped::default();
        for _ in 0..3 {
            assert_eq!(stopped.look(BOTH), [Remedy::GoOn; 2]);
            advance(AGAIN + LOOK_EVERY).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_looked_at_before_a_job() {
        let mut stopped = Stopped::default();
        assert!(tokio::time::timeout(100 * AGAIN, stopped.time_to_look()).await.is_err());
        stopped.begin();
        let first = stopped.at;
        advance(Duration::from_secs(1)).await;
        stopped.begin();
        assert_eq!(stopped.at, first, "it is not put off");
        stopped.time_to_look().await;
        assert_eq!(Some(Instant::now()), first);
    }

    #[test]
    fn a_process_is_stopped_between_two_signals() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = Pid::from_raw(child.id().try_into().unwrap());
        assert!(!is_stopped(pid));
        kill(pid, Signal::SIGSTOP).unwrap();
        while !is_stopped(pid) {
            std::thread::yield_now();
        }
        kill(pid, Signal::SIGCONT).unwrap();
        while is_stopped(pid) {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!is_stopped(pid));
    }
}
