//! Shared hardware: runners of two organisations, and one board.

use super::super::posture::Posture;
use super::super::runner::Runner;
use super::super::world::{World, gated};
use super::{Scenario, either};
use crate::forge::{JobSpec, JobStatus};
use crate::protocol::{Condition, JobResult};

pub(super) const TABLE: &[Scenario] = &[
    either("board-cancel", "two organisations, one board: a job that waits for it is cancelled", cancelled),
    either("board-hook", "two organisations, one board: the hook of a job that waits is killed", hook_killed),
    either("board", "two organisations take turns on one board", turns),
];

/// A board, and who has it.
struct Lab<'a> {
    world: &'a World<'a>,
    mounts: [String; 2],
    /// Of one organisation, with the board, whose job goes on when it is let.
    holder: Runner,
    held: u64,
    /// Of the other.
    waiter: Runner,
    after: u64,
}

/// Takes the board's mark, which only one can have.
const TAKE: &str = "mkdir /board/taken || { echo overlap; exit 1; }";

impl<'a> Lab<'a> {
    /// One has the board, and the other listens.
    fn build(world: &'a World<'a>) -> Result<Self, String> {
        // Where PID 1 is not root, the locks are its user's.
        let owner = if world.posture == Posture::User { "1001:1001" } else { "0:0" };
        let locks = world.volume("locks", &format!("chmod 0755 .; chown {owner} ."))?;
        let board = world.volume("board", "chmod 0777 .")?;
        let mounts = [format!("--volume={locks}:/var/lock/oscr"), format!("--volume={board}:/board")];
        let holder = runner(world, "acme", &mounts)?;
        let waiter = runner(world, "umbrella", &mounts)?;
        world.forge.listening(holder.host(), 0)?;
        let after = world.forge.listening(waiter.host(), 0)?.id;
        let held =
            world.forge.submit(&job("acme", "holder", &format!("{TAKE}; {}; rmdir /board/taken", gated("/tmp"))))?;
        holder.file("/tmp/begun")?;
        Ok(Self { world, mounts, holder, held, waiter, after })
    }

    /// A job of the other's that waits for the board.
    fn waiting(&self) -> Result<u64, String> {
        let steps = [Condition::Success, Condition::Always]
            .map(|when| super::jobs::step(when, "touch /board/ran; echo \"ran $((1))\""));
        let job = JobSpec { steps: steps.to_vec(), script: None, ..job("umbrella", "waiter", "") };
        let job = self.world.forge.submit(&job)?;
        self.waiter.line("waiting for board-1")?;
        let status = self.world.forge.job(job)?.status;
        check!(status == JobStatus::InProgress, "a job that waits is {status:?}");
        Ok(job)
    }

    /// No step ran of a job that did not get the board.
    fn nothing_ran(&self, job: u64) -> Result<(), String> {
        let job = self.world.forge.wait_job(job, JobStatus::Completed)?;
        check!(job.result != Some(JobResult::Succeeded), "it is told that it succeeded");
        self.waiter.exits(0)?;
        self.holder.exec("[ ! -e /board/ran ]", &[]).map(drop).map_err(|_| "a step ran without the board".to_owned())
    }

    /// The board's holder goes on, and then the other one gets it.
    fn goes_on(&self) -> Result<(), String> {
        self.holder.give("/tmp/go-on")?;
        self.world.forge.ends(self.held, JobResult::Succeeded)?;
        self.holder.exits(0)?;
        let next = runner(self.world, "umbrella", &self.mounts)?;
        self.world.forge.listening(next.host(), self.after)?;
        let job = self.world.forge.submit(&job("umbrella", "next", &format!("{TAKE}; rmdir /board/taken")))?;
        self.world.forge.ends(job, JobResult::Succeeded)?;
        next.exits(0)?;
        self.world.forge.empty()
    }
}

fn runner(world: &World<'_>, organisation: &str, mounts: &[String; 2]) -> Result<Runner, String> {
    let settings = [("GITHUB_OWNER", organisation), ("RUNNER_RESOURCE_ID", "board-1"), ("RUNNER_LABELS", "board-1")];
    world.runner_with(&settings, &[&mounts[0], &mounts[1]])
}

fn job(organisation: &str, name: &str, script: &str) -> JobSpec {
    let repository = Some(format!("{organisation}/firmware"));
    JobSpec { repository, labels: vec!["board-1".into()], ..JobSpec::script(name, script) }
}

fn turns(world: &World<'_>) -> Result<(), String> {
    let lab = Lab::build(world)?;
    let script = format!("{TAKE}; echo \"had it $((1))\"; rmdir /board/taken");
    let second = world.forge.submit(&job("umbrella", "second", &script))?;
    lab.waiter.line("waiting for board-1")?;
    let status = world.forge.job(second)?.status;
    check!(status == JobStatus::InProgress, "a job that waits is {status:?}");
    lab.holder.give("/tmp/go-on")?;
    world.forge.ends(lab.held, JobResult::Succeeded)?;
    let second = world.forge.ends(second, JobResult::Succeeded)?;
    check!(second.log.contains("had it 1"), "its log does not say that it had the board: {}", second.log);
    lab.holder.exits(0)?;
    lab.waiter.exits(0)?;
    world.forge.empty()
}

fn cancelled(world: &World<'_>) -> Result<(), String> {
    let lab = Lab::build(world)?;
    let job = lab.waiting()?;
    world.forge.cancel(job)?;
    lab.nothing_ran(job)?;
    let log = world.forge.job(job)?.log;
    check!(log.contains("it was cancelled while this job waited for its hardware"), "its log does not say why: {log}");
    lab.goes_on()
}

/// Kills the hook that waits, and not the shell that runs this.
const KILL_HOOK: &str = r#"found=1
for process in /proc/[0-9]*; do
    if tr '\0' ' ' <"$process/cmdline" 2>/dev/null | grep -q 'oscr-entry hook [-]'; then
        kill -KILL "${process#/proc/}" && found=0
    fi
done
exit $found"#;

fn hook_killed(world: &World<'_>) -> Result<(), String> {
    let lab = Lab::build(world)?;
    let job = lab.waiting()?;
    lab.waiter.exec(KILL_HOOK, &[])?;
    lab.nothing_ran(job)?;
    lab.goes_on()
}
