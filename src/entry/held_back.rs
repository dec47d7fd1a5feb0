//! A job that its hook holds back, and what ends the wait otherwise than with what it waits for: a cancel, the hook's death, or
//! that nobody can tell whose hook it is.

use std::ops::ControlFlow;

use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;

use super::ended_by::EndedBy;
use super::session::Session;
use super::teardown::end_processes;
use crate::control::HookAnswer;
use crate::control::server::Hooked;
use crate::init::Ended;

impl Session<'_> {
    /// The listener traces that the forge cancels its job. GitHub's worker leaves a hook alone, and kills it with the job, its
    /// log untold, when the forge's patience is over. So a job that waits for its hardware is ended here.
    ///
    /// A job can write such a line too, but only to its worker's output, and a job whose hook has not been answered has run no
    /// step yet: until then the line is the listener's own. Later it means nothing here.
    pub(super) async fn cancelled(&mut self) -> ControlFlow<Ended> {
        if self.admission.waits() || !self.hooked {
            self.admission.cancelled = true;
        }
        self.end_if_cancelled().await
    }

    /// Ends the job if it waits for its hardware and was cancelled, be it before its hook asked.
    pub(super) async fn end_if_cancelled(&mut self) -> ControlFlow<Ended> {
        if !(self.admission.cancelled && self.admission.waits()) {
            return ControlFlow::Continue(());
        }
        tracing::warn!("the job was cancelled while it waited for its hardware: it is ended");
        self.ends_job(EndedBy::Forge);
        self.end_wait("it was cancelled").await;
        self.interrupt().await
    }

    /// Tells the job's log why the job may not go on, and interrupts the listener; kills the worker first where the hook is gone.
    pub(super) async fn fail_job(
        &mut self,
        answers: UnboundedSender<HookAnswer>,
        told: &Notify,
        why: String,
    ) -> ControlFlow<Ended> {
        let hook = answers.clone();
        if !hook.is_closed() {
            self.admission.refuse(answers, told, why).await;
        }
        if hook.is_closed() { self.hook_gone().await } else { self.interrupt().await }
    }

    /// Has a job that waits for its hardware say why it is about to be cancelled: its page would only say that it was.
    pub(super) async fn end_wait(&mut self, why: &str) {
        if let Some((answers, told)) = self.admission.end_wait() {
            self.give_back();
            let why = format!("this job is failed: {why} while this job waited for its hardware");
            self.admission.refuse(answers, &told, why).await;
        }
    }

    /// The job's hook is gone, and nothing holds the job back. Its worker begins steps that run `always()` some 30 ms after the
    /// hook's end; an interrupted listener takes up to a second to tell it not to, and such a step has ten more. So the worker is
    /// killed first; the listener reports its job as failed.
    pub(super) async fn hook_gone(&mut self) -> ControlFlow<Ended> {
        if !self.job.runs() {
            return self.interrupt().await;
        }
        end_processes(&[self.listener.pid]).await;
        self.give_back();
        ControlFlow::Continue(())
    }

    /// Hardware that was being made ready for a job that does not wait any more goes back.
    pub(super) fn give_back(&mut self) {
        if let Some(guard) = self.parts.gate.guard.clone()
            && let Some(held) = guard.unprepared()
        {
            self.releasing = Some(Box::pin(async move { guard.release(held).await }));
        }
    }

    /// Whether a hook that is not known to be our job's may be its all the same, and the job cannot go on without: turned away, it
    /// would fail, and steps that run `always()` would run unjudged or without the hardware. So such a job is ended.
    ///
    /// Nobody should be able to have a job ended by posing as its hook. A process that lives, whose ancestors are seen here and
    /// are not the listener's, is no hook of it, whatever it says; nor is one of another user than the jobs'. What is left are
    /// the jobs' user's processes that are not seen, or end as soon as they have asked: what has that user's rights can kill
    /// the worker anyway. And once its own hook was heard, no other matters.
    pub(super) fn may_be_the_jobs(&self, hooked: &Hooked) -> bool {
        let means = self.parts.means;
        let runs = self.job.was() && !self.job.over();
        runs && hooked.user.is_none_or(|user| user == means.agent.uid)
            && self.admission.needs_its_hook(&means.common.policy, self.parts.gate)
            && self.job.may_include(hooked.peer)
    }

    /// Ends a job whose hook may be this one.
    pub(super) async fn fail_unknown(&mut self, hooked: Hooked) -> ControlFlow<Ended> {
        self.parts.registrar.use_up();
        let why = "its hook is not known for its own: PID 1 does not see the process that asks among those of the job, so the \
                   job is neither judged nor given hardware";
        tracing::error!("the job is failed: {why}");
        self.ends_job(EndedBy::Hook);
        self.fail_job(hooked.answers, &hooked.told, format!("this job is failed: {why}")).await
    }
}
