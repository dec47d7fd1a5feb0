//! The threads that share a wipe: whoever has nothing to do is given a whole subtree.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicIsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// How many subtrees wait in memory to be removed. The rest is found again at the top.
const WAITING: usize = 1024;

/// What waits for a thread, and who waits for work.
#[derive(Default)]
pub(super) struct Crew {
    /// Threads without work, less subtrees that wait for one.
    hungry: AtomicIsize,
    queue: Mutex<Backlog>,
    news: Condvar,
}

#[derive(Default)]
struct Backlog {
    /// Subtrees at the top, by their numbers, and where they were.
    work: VecDeque<(u64, PathBuf)>,
    /// Threads that are busy.
    busy: usize,
    /// Threads that wait for work.
    idle: usize,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Crew {
    /// Whether a subtree waits.
    pub(super) fn waits(&self) -> bool {
        !lock(&self.queue).work.is_empty()
    }

    /// Whether a thread has nothing to do that could be helped out with a subtree.
    pub(super) fn is_hungry(&self) -> bool {
        self.hungry.load(Ordering::Relaxed) > 0
    }

    /// Has somebody remove the subtree with this number. What is too much to remember is found again at the top.
    pub(super) fn offer(&self, number: u64, path: impl FnOnce() -> PathBuf) {
        let mut queue = lock(&self.queue);
        if queue.work.len() < WAITING {
            queue.work.push_back((number, path()));
            self.count_the_hungry(&queue);
            self.news.notify_one();
        }
    }

    /// Has this thread do what comes first, and as many as there may be remove all that waits, until nobody has any left.
    pub(super) fn together<W>(
        &self,
        threads: usize,
        worker: impl Fn() -> W + Sync,
        first: impl FnOnce(&mut W),
        remove: impl Fn(&mut W, u64, &Path) + Sync,
    ) {
        lock(&self.queue).busy = 1;
        thread::scope(|scope| {
            for _ in 1..threads {
                lock(&self.queue).busy += 1;
                let helper = || self.work(&mut worker(), &remove);
                if thread::Builder::new().stack_size(256 * 1024).spawn_scoped(scope, helper).is_err() {
                    // The limit of processes is reached: then fewer do it.
                    lock(&self.queue).busy -= 1;
                    break;
                }
            }
            let mut own = worker();
            first(&mut own);
            self.work(&mut own, &remove);
        });
    }

    fn work<W>(&self, worker: &mut W, remove: &impl Fn(&mut W, u64, &Path)) {
        let mut queue = lock(&self.queue);
        loop {
            queue.busy -= 1;
            queue.idle += 1;
            self.count_the_hungry(&queue);
            let (number, path) = loop {
                if let Some(work) = queue.work.pop_front() {
                    break work;
                }
                if queue.busy == 0 {
                    queue.idle -= 1;
                    self.count_the_hungry(&queue);
                    self.news.notify_all();
                    return;
                }
                queue = self.news.wait(queue).unwrap_or_else(PoisonError::into_inner);
            };
            queue.idle -= 1;
            queue.busy += 1;
            self.count_the_hungry(&queue);
            drop(queue);
            remove(worker, number, &path);
            queue = lock(&self.queue);
        }
    }

    /// To be called after each change of the queue.
    fn count_the_hungry(&self, queue: &Backlog) {
        let signed = |count: usize| isize::try_from(count).unwrap_or(isize::MAX);
        self.hungry.store(signed(queue.idle) - signed(queue.work.len()), Ordering::Relaxed);
    }
}
