//! Resources that are set aside: the hooks for a new holder failed for one job after another, so they are tried again only now
//! and then, by one of those who wait.
//!
//! What is known is in `<id>.aside-<key>`, beside the lock. The key stands for the hooks' content, and for all that was held with
//! it: whoever has other hooks, or wants other resources, is not concerned. Only the holder of the lock writes the file, in one
//! step, so nobody reads half of it, and a holder that dies leaves what was there. [`Locks::repair`] may remove it at any time.
//!
//! Nobody holds a resource, or stands in its queue, because it is set aside: a person who repairs it, or somebody with other hooks,
//! must get it. Those who wait for it queue for its *turn* instead, which is a lock of its own in the same directory, in the same
//! way, and its holder joins the queue of the resource when it is time. A turn is always taken before its resource and never
//! while one is held, so waits for turns and waits for resources make no circle; and as a turn is given up only once its
//! holder has joined the queue, those who wait keep their order.

use std::fs;
use std::io;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::attempt::Held;
use super::claim::{Claim, Tell};
use super::locks::Locks;
use super::sharing::with_group;
use super::wanted::{KEY, ResourceId, Wanted, is_key};
use crate::encode::{digest, rfc3339, seconds};
use crate::files;
use crate::plain::plain;

/// So many failures in a row, of different jobs, set a resource aside.
const FAILURES: usize = 3;
/// After how long it is tried again, at first and at most.
const FIRST: Duration = Duration::from_secs(60);
const LAST: Duration = Duration::from_secs(15 * 60);
/// What stands between a resource's name and the key.
const MARK: &str = ".aside-";

/// What is known of the hooks that failed for a resource.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Failures {
    /// What they failed for in a row, each once.
    jobs: Vec<String>,
    /// The last of them, for people.
    who: Claim,
    /// Why, with the hook's last line.
    why: String,
    /// Since when it is set aside, in seconds since 1970; `None` before.
    since: Option<u64>,
    /// When it is tried again.
    next: u64,
    /// How many seconds lie before that.
    wait: u64,
}

/// A resource that is set aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aside {
    /// Its name.
    pub resource: String,
    /// Since when.
    pub since: String,
    /// The last for whom its hooks failed, as far as it may be told.
    pub who: String,
    /// Why they did, with the last line of the one that failed.
    pub why: String,
    /// When the first of those who wait tries them again.
    pub next: String,
    #[serde(skip)]
    due: bool,
}

impl Aside {
    /// Whether it is time to try.
    #[must_use]
    pub(crate) fn is_due(&self) -> bool {
        self.due
    }
}

impl std::fmt::Display for Aside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without who it was: jobs of others read this.
        let Self { resource, since, why, next, .. } = self;
        write!(
            f,
            "{resource} is set aside since {since}, because its hooks failed for one job after another ({why}); it is "
        )?;
        write!(f, "tried again at {next}, and `oscr-entry lock repair` on its host brings it back")
    }
}

/// Resources that are held together for one job, and the hooks for who gets them.
#[derive(Debug, Clone)]
pub(crate) struct Unit {
    ids: Vec<ResourceId>,
    key: String,
}

/// All that may be wanted here, and the locks where it is recorded what was set aside.
#[derive(Debug, Clone)]
pub(crate) struct Shelf {
    locks: Locks,
    tell: Tell,
    any: bool,
    units: Vec<Unit>,
}

impl Shelf {
    /// For what is wanted by those whose hooks have these names and contents; of others' jobs as much is said as `tell` allows.
    #[must_use]
    pub(crate) fn new(locks: Locks, wanted: &Wanted, hooks: &[String], tell: Tell) -> Self {
        let unit = |ids: Vec<ResourceId>| {
            let names = ids.iter().map(ResourceId::as_str);
            let texts: Vec<&str> = hooks.iter().map(String::as_str).chain(names).collect();
            let key = digest(&texts).chars().take(KEY).collect();
            Unit { ids, key }
        };
        let (any, units) = match wanted {
            Wanted::All(ids) => (false, vec![unit(ids.clone())]),
            Wanted::Any(ids) => (true, ids.iter().map(|id| unit(vec![id.clone()])).collect()),
        };
        Self { locks, tell, any, units }
    }

    /// What may be waited for at once: all that is wanted; of a pool, without what is set aside and not to be tried. `None` if all
    /// of it is set aside, and a turn is to be waited for.
    #[must_use]
    pub(crate) fn wanted(&self) -> Option<Wanted> {
        let whole = self.units.iter().any(|unit| self.look(unit).is_none());
        self.ready().filter(|_| whole)
    }

    /// What is not set aside, or to be tried now, if anything is.
    #[must_use]
    pub(crate) fn ready(&self) -> Option<Wanted> {
        let ready = |unit: &&Unit| self.look(unit).is_none_or(|aside| aside.is_due());
        let ids: Vec<ResourceId> = self.units.iter().filter(ready).flat_map(|unit| unit.ids.clone()).collect();
        (!ids.is_empty()).then_some(if self.any { Wanted::Any(ids) } else { Wanted::All(ids) })
    }

    /// What of a pool is not set aside any more, besides what is waited for already.
    #[must_use]
    pub(crate) fn back(&self, waited_for: &Wanted) -> Option<Wanted> {
        let back = |unit: &&Unit| {
            let known = unit.ids.iter().any(|id| waited_for.ids().contains(id));
            !known && self.look(unit).is_none()
        };
        let ids: Vec<ResourceId> = self.units.iter().filter(back).flat_map(|unit| unit.ids.clone()).collect();
        (!ids.is_empty()).then_some(Wanted::Any(ids))
    }

    /// What is set aside of all that is wanted.
    #[must_use]
    pub(crate) fn asides(&self) -> Vec<Aside> {
        self.units.iter().filter_map(|unit| self.look(unit)).collect()
    }

    /// Each resource that is wanted, and whether it is set aside.
    #[must_use]
    pub(crate) fn states(&self) -> Vec<(String, bool)> {
        let of = |unit: &Unit| {
            let aside = self.look(unit).is_some();
            unit.ids.iter().map(|id| (id.to_string(), aside)).collect::<Vec<_>>()
        };
        self.units.iter().flat_map(of).collect()
    }

    /// What those queue for who wait for something that is set aside: of a pool, for its first.
    #[must_use]
    pub(crate) fn turn(&self) -> Wanted {
        Wanted::All(self.units.iter().take(1).map(|unit| ResourceId::turn(&unit.key)).collect())
    }

    /// What is held is one of these.
    #[must_use]
    pub(crate) fn unit(&self, held: &Held) -> Option<&Unit> {
        self.units.iter().find(|unit| unit.ids.iter().collect::<Vec<_>>() == held.ids())
    }

    /// Whether it is set aside.
    #[must_use]
    pub(crate) fn look(&self, unit: &Unit) -> Option<Aside> {
        // Whichever of them is repaired, all are back.
        let records: Option<Vec<Failures>> = unit.ids.iter().map(|id| self.locks.record(id, &unit.key)).collect();
        let record = records?.into_iter().next()?;
        let names: Vec<&str> = unit.ids.iter().map(ResourceId::as_str).collect();
        shown(&names.join(","), &record, self.tell)
    }

    /// The hooks have failed for its new holder, who is the caller, for this reason; `job` tells it from others. Whether it is set
    /// aside now.
    ///
    /// # Errors
    /// When that cannot be recorded.
    pub(crate) fn failed(&self, unit: &Unit, job: &str, claim: &Claim, why: &str) -> io::Result<Option<Aside>> {
        for id in &unit.ids {
            let record =
                self.locks.record(id, &unit.key).unwrap_or_default().after(job, claim, why, seconds(SystemTime::now()));
            let path = self.locks.record_path(id, &unit.key);
            files::replace(&path, &serde_json::to_vec(&record)?, 0o600)?;
            // It may have been repaired meanwhile.
            if let Ok(file) = fs::File::open(&path) {
                with_group(self.locks.path(), &path, &file);
            }
        }
        Ok(self.look(unit))
    }

    /// The hooks have worked for its new holder, who is the caller.
    pub(crate) fn worked(&self, unit: &Unit) {
        for id in &unit.ids {
            let path = self.locks.record_path(id, &unit.key);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!("{} cannot be removed, so {id} may stay set aside: {error}", path.display());
                }
                _ => {}
            }
        }
    }
}

impl Failures {
    /// After one more failure, at this moment.
    fn after(mut self, job: &str, claim: &Claim, why: &str, now: u64) -> Self {
        if !self.jobs.iter().any(|known| known == job) && self.jobs.len() < FAILURES {
            self.jobs.push(job.to_owned());
        }
        self.who = claim.clone();
        self.why = plain(why);
        if self.jobs.len() >= FAILURES {
            let doubled = if self.since.is_some() { self.wait.saturating_mul(2) } else { 0 };
            self.wait = doubled.clamp(FIRST.as_secs(), LAST.as_secs());
            self.next = now.saturating_add(self.wait);
            self.since.get_or_insert(now);
        }
        self
    }
}

fn shown(resource: &str, record: &Failures, tell: Tell) -> Option<Aside> {
    let now = seconds(SystemTime::now());
    // A clock that was set back does not make anybody wait for longer than the record says.
    let due = now >= record.next || record.next - now > record.wait;
    Some(Aside {
        resource: resource.to_owned(),
        since: rfc3339(record.since?),
        who: plain(&record.who.for_strangers(tell).to_string()),
        why: plain(&record.why),
        next: rfc3339(record.next),
        due,
    })
}

impl Locks {
    fn record_path(&self, id: &ResourceId, key: &str) -> std::path::PathBuf {
        self.path().join(format!("{id}{MARK}{key}"))
    }

    fn record(&self, id: &ResourceId, key: &str) -> Option<Failures> {
        serde_json::from_slice(&fs::read(self.record_path(id, key)).ok()?).ok()
    }

    /// The keys of all records of a resource.
    fn keys(&self, id: &ResourceId) -> io::Result<Vec<String>> {
        let begin = format!("{id}{MARK}");
        let names = fs::read_dir(self.path())?.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let keys = names.filter_map(|name| Some(name.strip_prefix(&begin)?.to_owned()));
        Ok(keys.filter(|key| is_key(key)).collect())
    }

    /// What is set aside of a resource, for whichever hooks, with all that is known.
    #[must_use]
    pub(crate) fn asides(&self, id: &ResourceId) -> Vec<Aside> {
        let records = self.keys(id).unwrap_or_default().into_iter().filter_map(|key| self.record(id, &key));
        records.filter_map(|record| shown(id.as_str(), &record, Tell::All)).collect()
    }

    /// Forgets what failed for a resource, so that its hooks run for the next holder. How much there was to forget.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub(crate) fn repair(&self, id: &ResourceId) -> io::Result<usize> {
        let keys = self.keys(id)?;
        for key in &keys {
            match fs::remove_file(self.record_path(id, key)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(keys.len())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;
    use crate::resource::LockPlace;

    fn claim(who: &str) -> Claim {
        Claim::now(who.to_owned())
    }

    fn shelf(directory: &tempfile::TempDir, wanted: &str, hooks: &str) -> Shelf {
        let locks = Locks::unchecked(&LockPlace { directory: directory.path().to_owned(), allow_nfs: false });
        Shelf::new(locks, &wanted.parse().unwrap(), &[hooks.to_owned()], Tell::Owner)
    }

    #[test]
    fn three_different_jobs_in_a_row_set_it_aside_and_no_job_by_itself_does() {
        let directory = tempfile::tempdir().unwrap();
        let shelf = shelf(&directory, "board-1", "#!/bin/sh");
        let unit = &shelf.units[0];
        for who in ["a", "b", "b", "a"] {
            assert_eq!(shelf.failed(unit, who, &claim(who), "no").unwrap(), None, "{who}");
        }
        // One that works in between makes it history.
        shelf.worked(unit);
        for who in ["c", "d"] {
            assert_eq!(shelf.failed(unit, who, &claim(who), "no").unwrap(), None, "{who}");
        }
        let aside =
            shelf.failed(unit, "e", &claim("e"), "the hook failed: no power\u{1b}[1m").unwrap().expect("set aside");
        assert!(aside.who.starts_with("e ") && aside.why == "the hook failed: no power[1m", "{aside:?}");
        assert!(!aside.is_due() && shelf.wanted().is_none());
        assert_eq!(shelf.states(), [("board-1".to_owned(), true)]);
        shelf.worked(unit);
        assert!(shelf.wanted().is_some() && shelf.asides().is_empty());
    }

    #[test]
    fn it_is_tried_after_a_minute_and_then_half_as_often_down_to_a_quarter_of_an_hour() {
        let mut record = Failures::default();
        for who in ["a", "b", "c"] {
            record = record.after(who, &claim(who), "no", 1000);
        }
        let mut waits = vec![record.wait];
        for _ in 0..6 {
            let next = record.next;
            record = record.after("d", &claim("d"), "no", next);
            assert_eq!(record.next, next + record.wait);
            waits.push(record.wait);
        }
        assert_eq!(waits, [60, 120, 240, 480, 900, 900, 900]);
        assert_eq!(record.since, Some(1000));
    }

    #[test]
    fn other_hooks_and_other_resources_are_not_concerned() {
        let directory = tempfile::tempdir().unwrap();
        let shelf_of = |wanted, hooks| shelf(&directory, wanted, hooks);
        let one = shelf_of("board-1", "x");
        for who in ["a", "b", "c"] {
            one.failed(&one.units[0], who, &claim(who), "no").unwrap();
        }
        assert_eq!(shelf_of("board-1", "x").asides().len(), 1);
        for (wanted, hooks) in [("board-1", "y"), ("board-2", "x"), ("board-1,power", "x")] {
            assert_eq!(shelf_of(wanted, hooks).asides(), [], "{wanted} {hooks}");
        }
        // Of a pool, the others are left.
        let pool = shelf_of("board-1|board-2", "x");
        assert_eq!(pool.wanted().unwrap().to_string(), "board-2");
        assert_eq!((pool.asides().len(), pool.back(&"board-2".parse().unwrap())), (1, None));
        one.worked(&one.units[0]);
        assert_eq!(pool.back(&"board-2".parse().unwrap()).unwrap().to_string(), "board-1");
        assert_eq!(pool.back(&"board-1|board-2".parse().unwrap()), None);
    }

    #[test]
    fn whichever_of_several_is_repaired_all_are_back_and_what_cannot_be_read_sets_nothing_aside() {
        let directory = tempfile::tempdir().unwrap();
        let both = shelf(&directory, "board-1,power", "x");
        for who in ["a", "b", "c"] {
            both.failed(&both.units[0], who, &claim(who), "no").unwrap();
        }
        assert_eq!(both.asides()[0].resource, "board-1,power");
        let power: ResourceId = "power".parse().unwrap();
        assert_eq!(both.locks.asides(&power).len(), 1);
        assert_eq!(both.locks.repair(&power).unwrap(), 1);
        assert_eq!(both.asides(), []);
        let board: ResourceId = "board-1".parse().unwrap();
        fs::write(both.locks.record_path(&board, &both.units[0].key), "{").unwrap();
        assert_eq!((both.asides(), both.locks.repair(&power).unwrap()), (vec![], 0));
    }

    #[test]
    fn of_others_jobs_as_much_is_said_as_may_be_told_and_the_record_is_the_groups_like_all_else() {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o770)).unwrap();
        let shelf = shelf(&directory, "board-1", "x");
        let secret =
            Claim { owner: Some("o".to_owned()), repository: Some("o/secret".to_owned()), ..claim("oscr-secret") };
        for job in ["a", "b", "c"] {
            shelf.failed(&shelf.units[0], job, &secret, "no").unwrap();
        }
        let told = &shelf.asides()[0].who;
        assert!(told.starts_with("a runner of o "), "{told}");
        let id: ResourceId = "board-1".parse().unwrap();
        let known = &shelf.locks.asides(&id)[0].who;
        assert!(known.starts_with("oscr-secret "), "{known}");
        let record = shelf.locks.record_path(&id, &shelf.units[0].key);
        assert_eq!(fs::metadata(record).unwrap().mode() & 0o777, 0o660);
    }

    #[test]
    fn a_turn_is_no_resource() {
        let directory = tempfile::tempdir().unwrap();
        let turn = shelf(&directory, "board-1", "x").turn();
        assert!(turn.ids()[0].is_turn() && turn.ids()[0].as_str().parse::<ResourceId>().is_ok());
        assert!(["turn-table", "board-1"].iter().all(|id| !id.parse::<ResourceId>().unwrap().is_turn()));
    }
}
