//! The protocol as a model, explored in every order of steps, with a death at every step and with anybody giving up who waits.
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
    /// Has let everything go, or was killed.
    Gone,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
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
            plain: if plain { 0 } else { 2 },
            ..Self::default()
        }
    }

    fn mutex_is_free(&self) -> bool {
        !self.at.iter().any(|at| matches!(at, At::Drawing | At::Drawn))
    }

    fn holders(&self) -> usize {
        let holds = |at: &&At| matches!(at, At::Entering | At::Holding | At::Leaving);
        self.at.iter().filter(holds).count() + usize::from(self.plain == 1)
    }

    fn ticket_is_locked(&self, number: u8) -> bool {
        self.at.iter().zip(&self.number).any(|(at, own)| *own == number && *at != At::Gone)
    }

    /// All worlds that one step leads to, with whether it is one that somebody else has it take: its death, or to give up.
    fn steps(&self) -> Vec<(World, bool)> {
        let mut next = Vec::new();
        for process in 0..self.at.len() {
            next.extend([false, true].into_iter().filter_map(|asked| Some((self.step(process, asked)?, asked))));
            let mut dead = self.clone();
            dead.at[process] = At::Gone;
            next.push((dead, true));
        }
        if (self.plain == 0 && self.holders() == 0) || self.plain == 1 {
            let mut world = self.clone();
            world.plain += 1;
            next.push((world, false));
        }
        next
    }

    /// The next step of one process, unless it waits or has ended. One that was `asked` to give up does so where it would wait, be it
    /// in the call or about to make it, and where it has just won; until it comes there, it goes on as ever.
    fn step(&self, process: usize, asked: bool) -> Option<World> {
        let mut world = self.clone();
        let own = self.number[process];
        world.at[process] = match self.at[process] {
            at @ (At::New | At::Looking | At::Behind(_) | At::First | At::Entering) if asked => {
                // Its name goes, then its locks.
                world.names.retain(|name| *name != own);
                if at == At::Entering { At::Leaving } else { At::Free }
            }
            _ if asked => return None,
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
            At::First if self.holders() == 0 => At::Entering,
            At::Entering => {
                world.names.retain(|name| *name != own);
                At::Holding
            }
            At::Holding => At::Leaving,
            At::Leaving => At::Free,
            At::Free => At::Gone,
            At::New | At::Behind(_) | At::First | At::Gone => return None,
        };
        Some(world)
    }

    /// Whoever enters must be the first of those alive who have a number and have not had their turn.
    fn order_is_kept(&self) -> bool {
        let waits = |at: &At| matches!(at, At::Drawn | At::Looking | At::Behind(_) | At::After(_) | At::First);
        let passes =
            |own: u8| self.at.iter().zip(&self.number).any(|(at, other)| waits(at) && (1..own).contains(other));
        !self.at.iter().zip(&self.number).any(|(at, own)| *at == At::Entering && passes(*own))
    }
}

fn explore(start: World) -> usize {
    let mut seen = HashSet::from([start.clone()]);
    let mut open = vec![start];
    while let Some(world) = open.pop() {
        assert!(world.order_is_kept(), "somebody passed an earlier ticket: {world:?}");
        assert!(world.holders() <= 1, "two holders: {world:?}");
        let steps = world.steps();
        let alive = || (0..world.at.len()).filter(|process| world.at[*process] != At::Gone);
        // Everybody alive waits, and nobody will ever wake them: a deadlock, or a wake-up that was lost.
        assert!(alive().count() == 0 || steps.iter().any(|(_, made)| !made), "nobody can go on: {world:?}");
        assert!(
            alive().all(|one| world.step(one, false).or(world.step(one, true)).is_some()),
            "asked in vain: {world:?}"
        );
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
    assert!(explore(World::new(3, true)) > 5_000, "the exploration was cut short");
}

#[test]
fn four_waiters_without_others_end_too() {
    assert!(explore(World::new(4, false)) > 20_000);
}
