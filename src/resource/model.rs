//! The protocol as a model, explored in every order of steps and with a death at every step.
//!
//! Each step below is one system call of the protocol, or several that nobody can come between. Processes are symmetric, so
//! a few of them show all there is: a holder, its successor, and one that comes while the successor dies.

use std::collections::HashSet;

/// How far a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum At {
    /// Has a locked ticket without a number.
    New,
    /// Holds the mutex, and its ticket has no number yet.
    Drawing,
    /// Holds the mutex still, and its ticket has a number.
    Drawn,
    /// About to look for a predecessor.
    Looking,
    /// Waits for the lock of this ticket.
    Behind(u8),
    /// Got the lock of this ticket, and is about to remove its name.
    After(u8),
    /// Waits for the resource's lock.
    First,
    /// Has the resource's lock, and its ticket is still in the queue.
    Entering,
    /// Has it, and has moved its ticket.
    Holding,
    /// Has removed its record, and has the lock still.
    Leaving,
    /// Has let the lock go, and has its ticket still.
    Free,
    /// Has let everything go.
    Done,
    /// Was killed.
    Dead,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    at: Vec<At>,
    /// The number of each process' ticket; 0 before it has one.
    number: Vec<u8>,
    /// Numbers whose names are in the queue.
    names: Vec<u8>,
    /// The last number drawn, as the mutex file says.
    last: u8,
    /// A user of flock(1): not yet, has it, has been.
    plain: u8,
}

impl World {
    fn new(processes: usize, plain: bool) -> Self {
        Self {
            at: vec![At::New; processes],
            number: vec![0; processes],
            names: Vec::new(),
            last: 0,
            plain: if plain { 0 } else { 2 },
        }
    }

    fn mutex_is_free(&self) -> bool {
        !self.at.iter().any(|at| matches!(at, At::Drawing | At::Drawn))
    }

    fn lock_is_free(&self) -> bool {
        self.plain != 1 && !self.at.iter().any(|at| matches!(at, At::Entering | At::Holding | At::Leaving))
    }

    fn ticket_is_locked(&self, number: u8) -> bool {
        self.at.iter().zip(&self.number).any(|(at, own)| *own == number && !matches!(at, At::Done | At::Dead))
    }

    /// All worlds that one step leads to, with whether the step is a death.
    fn steps(&self) -> Vec<(World, bool)> {
        let mut next = Vec::new();
        for process in 0..self.at.len() {
            if let Some(world) = self.step(process) {
                next.push((world, false));
            }
            if !matches!(self.at[process], At::Done | At::Dead) {
                let mut world = self.clone();
                world.at[process] = At::Dead;
                next.push((world, true));
            }
        }
        if (self.plain == 0 && self.lock_is_free()) || self.plain == 1 {
            let mut world = self.clone();
            world.plain += 1;
            next.push((world, false));
        }
        next
    }

    /// The next step of one process, unless it waits or has ended.
    fn step(&self, process: usize) -> Option<World> {
        let mut world = self.clone();
        let own = self.number[process];
        world.at[process] = match self.at[process] {
            At::New if self.mutex_is_free() => At::Drawing,
            At::Drawing => {
                // Sweep, draw, name: under the mutex, and what others do meanwhile only frees tickets.
                world.names.retain(|name| self.ticket_is_locked(*name));
                let number = world.names.iter().copied().max().unwrap_or(0).max(self.last) + 1;
                world.last = number;
                world.number[process] = number;
                world.names.push(number);
                At::Drawn
            }
            At::Drawn => At::Looking,
            At::Looking => match self.names.iter().copied().filter(|name| *name < own).max() {
                Some(predecessor) => At::Behind(predecessor),
                None => At::First,
            },
            At::Behind(predecessor) if !self.ticket_is_locked(predecessor) => At::After(predecessor),
            At::After(predecessor) => {
                world.names.retain(|name| *name != predecessor);
                At::Looking
            }
            At::First if self.lock_is_free() => At::Entering,
            At::Entering => {
                world.names.retain(|name| *name != own);
                At::Holding
            }
            At::Holding => At::Leaving,
            At::Leaving => At::Free,
            At::Free => At::Done,
            At::New | At::Behind(_) | At::First | At::Done | At::Dead => return None,
        };
        Some(world)
    }

    /// Whoever enters must be the first of those alive who have a number and have not had their turn.
    fn order_is_kept(&self) -> bool {
        let waits = |at: &At| matches!(at, At::Drawn | At::Looking | At::Behind(_) | At::After(_) | At::First);
        let entering = self.at.iter().zip(&self.number).filter(|(at, _)| **at == At::Entering).map(|(_, own)| *own);
        entering
            .into_iter()
            .all(|own| !self.at.iter().zip(&self.number).any(|(at, number)| waits(at) && *number != 0 && *number < own))
    }
}

fn explore(start: World) -> usize {
    let mut seen = HashSet::from([start.clone()]);
    let mut open = vec![start];
    while let Some(world) = open.pop() {
        assert!(world.order_is_kept(), "somebody passed an earlier ticket: {world:?}");
        let holders = world.at.iter().filter(|at| matches!(at, At::Entering | At::Holding | At::Leaving)).count();
        assert!(holders + usize::from(world.plain == 1) <= 1, "two holders: {world:?}");
        let steps = world.steps();
        let alive = world.at.iter().any(|at| !matches!(at, At::Done | At::Dead));
        // Everybody alive waits, and nobody will ever wake them: a deadlock, or a wake-up that was lost.
        assert!(!alive || steps.iter().any(|(_, death)| !death), "nobody can go on: {world:?}");
        for (next, _) in steps {
            if seen.insert(next.clone()) {
                open.push(next);
            }
        }
    }
    seen.len()
}

#[test]
fn every_order_of_steps_and_deaths_keeps_order_and_ends() {
    let states = explore(World::new(3, true));
    assert!(states > 5_000, "the exploration was cut short: {states} states");
}

#[test]
fn four_waiters_without_others_end_too() {
    assert!(explore(World::new(4, false)) > 20_000);
}
