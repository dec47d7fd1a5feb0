//! What must live: no setting may have it emptied or given away.
//!
//! A setting that names a directory to be emptied, given to the jobs' user or closed to all but root is held against the places of the
//! system and of OSCR, its secrets, what came with the image, the other settings, and mounts that nobody named. Links and `..` count,
//! but for those in an emptied place: whatever a job made there goes before it is followed.

use std::fs;
use std::path::{Path, PathBuf};

use nix::unistd::Uid;

use super::ground::{Ground, real, shared};
use crate::agent::hook_files;
use crate::config::Problem;
use crate::os::mounts::under;
use crate::provider::SharedDirectory;
use crate::workspace::taint::{Shipped, shipped};

/// Where nothing is anybody's to empty.
const SYSTEM: [&str; 14] =
    ["bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "libx32", "proc", "root", "run", "sbin", "sys", "usr"];
/// Where directories of one's own may lie.
const COMMON_GROUND: [&str; 12] = [
    "home",
    "media",
    "mnt",
    "opt",
    "srv",
    "usr/local",
    "var",
    "var/cache",
    "var/lib",
    "var/log",
    "var/run",
    "var/spool",
];
/// How a secret is called.
const SECRET: &str = "the secret of";

/// How a place lies to another.
const IS: &str = "is";
const HOLDS: &str = "holds";
const LIES_IN: &str = "lies in";

/// What becomes of a directory because a setting names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// Emptied and given to the jobs' user.
    Work,
    /// The same, as that user's home.
    Home,
    /// Given to jobs, and held to its cap.
    Cache,
    /// Closed to all but root.
    Closed,
    /// A file in it is replaced.
    Written,
}

impl Purpose {
    fn words(self) -> &'static str {
        match self {
            Self::Work | Self::Home => "all in it would be removed, and it would be given to the jobs' user",
            Self::Cache => "it would be the jobs' to change",
            Self::Closed => "it would be closed to all but root",
            Self::Written => "a file there would be replaced",
        }
    }
}

/// A directory, the setting that names it, and what becomes of it.
#[derive(Debug, Clone)]
struct Named {
    setting: &'static str,
    place: PathBuf,
    purpose: Purpose,
}

/// Something that must live.
struct Precious {
    place: PathBuf,
    /// What it is, for people.
    what: String,
    /// Whether what lies in it is as precious.
    inside: bool,
    /// The setting that names it, if one does that is no secret's.
    setting: Option<&'static str>,
    /// Whether somebody put it where it is by a setting.
    named: bool,
}

/// How a place lies to another, if they share anything.
fn relation(place: &Path, other: &Path) -> Option<&'static str> {
    match (other.starts_with(place), place.starts_with(other)) {
        (true, true) => Some(IS),
        (true, false) => Some(HOLDS),
        (false, true) => Some(LIES_IN),
        (false, false) => None,
    }
}

impl<'a> Ground<'a> {
    /// What would be emptied, given away or closed, and must not; and what must live where all is emptied.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let named = self.named();
        let mut problems: Vec<Problem> = named.iter().filter_map(|named| self.judge(named)).collect();
        let at_fault = |place: &Path| {
            let named = named.iter().filter(|named| named.place == place);
            named.into_iter().any(|named| problems.iter().any(|problem| problem.setting == named.setting))
        };
        let emptied: Vec<PathBuf> = self.slate.places().filter(|place| !at_fault(place)).collect();
        let files = self.secrets.iter().filter_map(|source| Some((source.setting.as_str(), source.path()?.to_owned())));
        let living = self.living().into_iter().chain(files);
        problems.extend(living.filter_map(|(setting, place)| self.lost(&emptied, setting, &place)).collect::<Vec<_>>());
        problems.extend(self.survivors());
        problems
    }

    fn named(&self) -> Vec<Named> {
        let common = self.common;
        let named = |setting, place: &Path, purpose| Named { setting, place: place.to_owned(), purpose };
        let mut all = vec![named("RUNNER_WORKDIR", &common.work_directory, Purpose::Work)];
        all.extend(self.slate.own_home().map(|home| named("OSCR_AGENT_USER", home, Purpose::Home)));
        all.extend(common.caches.iter().map(|cache| named(cache.setting, &cache.place, Purpose::Cache)));
        all.extend(self.shared().into_iter().map(|shared| named(shared.setting, shared.place, Purpose::Closed)));
        all.extend(common.metrics_file.as_deref().map(|file| named("OSCR_METRICS_FILE", file, Purpose::Written)));
        all
    }

    fn shared(&self) -> Vec<SharedDirectory<'a>> {
        shared(self.common, self.provider)
    }

    /// What must live and lies where a setting says.
    pub(super) fn living(&self) -> Vec<(&'static str, PathBuf)> {
        let common = self.common;
        let mut all: Vec<(&'static str, PathBuf)> = Vec::new();
        all.extend(common.network.ca_file.clone().map(|file| ("OSCR_CA_FILE", file)));
        all.extend(common.hardware.as_ref().map(|hardware| ("RUNNER_LOCK_DIR", hardware.place.directory.clone())));
        all.extend(self.shared().into_iter().map(|shared| (shared.setting, shared.place.to_owned())));
        all.extend(common.metrics_file.clone().map(|file| ("OSCR_METRICS_FILE", file)));
        let system = common.places.system_environment();
        let hooks = hook_files::named(self.provider.agent(), self.environment, &system).into_iter();
        all.extend(hooks.map(|named| (named.variable, named.hook)));
        // Others are told for being no paths from the root on.
        all.retain(|(_, place)| place.is_absolute());
        all
    }

    fn precious(&self) -> Vec<Precious> {
        let places = &self.common.places;
        let thing = |place: PathBuf, what: &str, inside, setting: Option<&'static str>| Precious {
            place: real(&place),
            what: what.to_owned(),
            inside,
            setting,
            named: setting.is_some() || what.starts_with(SECRET),
        };
        let mut all = Vec::new();
        for place in [places.run(), places.state(), places.cache(), places.agent_directories(), places.pristine_home()]
        {
            all.push(thing(place, "a place of OSCR's own", true, None));
        }
        all.push(thing(places.root().join("opt/oscr"), "a place of OSCR's own", true, None));
        all.push(thing(places.hooks(), "a place of OSCR's own", true, None));
        all.extend(std::env::current_exe().ok().map(|program| thing(program, "OSCR's program", true, None)));
        for source in self.secrets {
            let what = format!("{SECRET} {}", source.setting);
            all.extend(source.path().map(|file| thing(file.to_owned(), &what, true, None)));
        }
        for (setting, place) in self.living() {
            all.push(thing(place, &format!("what {setting} names"), true, Some(setting)));
        }
        // Where nobody needs hardware, somebody who does may be beside us.
        let locks = self.environment.get("RUNNER_LOCK_DIR").filter(|_| self.common.hardware.is_none());
        let locks = locks.filter(|locks| locks.starts_with('/'));
        all.extend(locks.map(|locks| thing(locks.into(), "what RUNNER_LOCK_DIR names", true, None)));
        for place in &self.slate.temporary {
            all.push(thing(place.clone(), "where all users have their temporary files", false, None));
        }
        if let Some(home) = self.slate.own_home() {
            all.push(thing(home.clone(), "the home of the jobs' user", false, Some("OSCR_AGENT_USER")));
        }
        all.push(thing(self.common.work_directory.clone(), "the work directory", true, Some("RUNNER_WORKDIR")));
        for cache in &self.common.caches {
            all.push(thing(cache.place.clone(), "a cache, whose content stays", true, Some(cache.setting)));
        }
        for root in [Path::new("/"), places.root()] {
            for name in SYSTEM {
                all.push(thing(root.join(name), "a place of the system", true, None));
            }
            for name in COMMON_GROUND {
                all.push(thing(root.join(name), "where others have their places too", false, None));
            }
        }
        all
    }

    fn judge(&self, named: &Named) -> Option<Problem> {
        let Named { setting, place, purpose } = named;
        let at = self.real(place);
        let shown =
            if at == *place { place.display().to_string() } else { format!("{} ({})", place.display(), at.display()) };
        let wrong = |what: String| {
            Some(Problem::of(setting, format!("{shown} {what}: {}", purpose.words()), self.cure(*purpose)))
        };
        let precious = self.precious();
        let related = precious.iter().filter_map(|precious| {
            let how = relation(&at, &precious.place)?;
            let counts = (how != LIES_IN || precious.inside) && !self.allows(named, &at, precious, how);
            counts.then_some((how, precious))
        });
        // What says most comes first.
        if let Some((how, precious)) =
            related.min_by_key(|(how, _)| [IS, LIES_IN, HOLDS].iter().position(|known| known == how))
        {
            let (other, what) = (precious.place.display(), &precious.what);
            return wrong(if how == IS { format!("is {what}") } else { format!("{how} {other}, {what}") });
        }
        let var = real(&self.common.places.root().join("var"));
        let ours = *purpose == Purpose::Written || self.in_temporary(&at) || self.is_mounted(&at) || self.is_own(&at);
        if at.starts_with(&var) && !ours && self.came_with_image(&at, false) {
            return wrong(format!("came with the image in {}", var.display()));
        }
        if self.holds_files_of_image(*purpose, &at) {
            let what = format!("{shown} has files that came with the image: {}", purpose.words());
            let cure = match purpose {
                Purpose::Cache => "mount a volume there, or unset OSCR_CACHE_MAX",
                _ => "name an empty directory, or take the files out of the image",
            };
            return Some(Problem::of(setting, what, cure));
        }
        let is_link = fs::symlink_metadata(place).is_ok_and(|meta| meta.is_symlink());
        if matches!(purpose, Purpose::Work | Purpose::Home) && at != *place && is_link {
            let cure = match purpose {
                Purpose::Work => format!("name {} itself", at.display()),
                _ => format!("make {} a directory, or give the user another home", place.display()),
            };
            return Some(Problem::of(setting, format!("{shown} is a link, and no link is emptied"), cure));
        }
        let mount = matches!(purpose, Purpose::Work | Purpose::Home).then(|| self.unnamed_mount(&at)).flatten()?;
        let mounted = mount.point.display();
        let what = format!("{shown} lies in the mount {mounted}, which nobody named");
        let cure = match purpose {
            Purpose::Work => format!(
                "mount the directory itself (-v DIRECTORY:{}); or set RUNNER_WORKDIR={mounted}, if all that is mounted there may be removed",
                place.display()
            ),
            _ => format!("mount nothing on {mounted}, but on {} itself", place.display()),
        };
        Some(Problem::of(setting, what, cure))
    }

    /// What is not as it looks: exceptions to [`Ground::precious`].
    fn allows(&self, named: &Named, at: &Path, precious: &Precious, how: &str) -> bool {
        let places = &self.common.places;
        if precious.setting == Some(named.setting) {
            return true;
        }
        // One that we make where there is none is in our own place on purpose.
        if named.purpose == Purpose::Home && places.spare_homes().iter().any(|spare| real(spare) == at) {
            return true;
        }
        let of_system = precious.what == "a place of the system";
        let within = how == LIES_IN;
        let cache = precious.setting.is_some_and(|setting| self.is_cache(setting));
        let work = precious.setting == Some("RUNNER_WORKDIR");
        let run = real(&places.root().join("run"));
        // Whoever put something into the usual work directory has to put it elsewhere.
        let usual = self.real(&self.common.work_directory) == real(&places.root().join("work"));
        match named.purpose {
            Purpose::Work | Purpose::Home | Purpose::Cache if of_system && within => {
                self.in_temporary(at) || (self.is_mounted(at) && self.in_local(at))
            }
            // What of caches is too much is told with them, and what lies in a home or the usual work directory by itself.
            Purpose::Work => cache || (usual && !within && precious.named),
            Purpose::Home => cache || (work && (!usual || how == HOLDS)) || (how == HOLDS && precious.named),
            Purpose::Cache => {
                cache || work || (!precious.inside && self.slate.places().any(|place| real(&place) == precious.place))
            }
            Purpose::Closed if of_system && within => {
                self.in_temporary(at) || (precious.place == run && self.is_mounted(at))
            }
            Purpose::Closed => within && (work || (self.is_own(at) && precious.place == real(&places.cache()))),
            // A file beside others disturbs none of them.
            Purpose::Written => work || how == HOLDS || !precious.inside || (of_system && precious.place == run),
        }
    }

    fn cure(&self, purpose: Purpose) -> String {
        let (places, work) = (&self.common.places, &self.common.work_directory);
        let root = |path: &str| places.root().join(path).display().to_string();
        match purpose {
            Purpose::Work => format!("name a directory that nothing else uses, such as {}, or unset it", root("work")),
            Purpose::Home if Uid::effective().is_root() => {
                format!("name a user with a home of its own, such as {}", root("home/runner"))
            }
            Purpose::Home => format!(
                "give user {} a home of its own in the image's /etc/passwd, such as {}",
                self.account.identity.uid,
                root("home/runner")
            ),
            Purpose::Cache => {
                format!("name a directory that nothing else uses, such as {}", work.join("_tool").display())
            }
            Purpose::Closed => {
                format!("name a directory of its own, such as {}", places.cache().join("shared").display())
            }
            Purpose::Written => {
                format!("mount the collector's directory and name it, such as {}", root("var/lib/oscr-metrics"))
            }
        }
    }

    fn is_cache(&self, setting: &str) -> bool {
        self.common.caches.iter().any(|cache| cache.setting == setting)
    }

    fn holds_files_of_image(&self, purpose: Purpose, at: &Path) -> bool {
        match purpose {
            Purpose::Work => self.came_with_image(at, true),
            // Its copy is restored.
            Purpose::Home => {
                !at.starts_with(real(&self.common.places.root().join("home"))) && self.came_with_image(at, true)
            }
            // Nothing of a cache is removed but by its cap, and what a cache has in an image without baseline may be a job's.
            Purpose::Cache => {
                let path = at.strip_prefix(&self.root).ok().filter(|_| self.common.cache_cap.is_some());
                let own = under(&self.mounts, at).is_none_or(|mount| self.root.starts_with(&mount.point));
                own && path.is_some_and(|path| shipped(&self.root, path, &[]) == Some(Shipped::Files))
            }
            Purpose::Closed | Purpose::Written => false,
        }
    }

    /// Something that must live and would be removed with a place that is emptied.
    fn lost(&self, emptied: &[PathBuf], setting: &str, path: &Path) -> Option<Problem> {
        let (place, at) = self.emptied_around(emptied, path)?;
        let home = self.slate.own_home().is_some_and(|home| *home == place);
        let restored = home && path.strip_prefix(&place).is_ok_and(|path| self.slate.pristine_home.join(path).exists());
        if restored && setting.starts_with("ACTIONS_") {
            return None;
        }
        let what = format!("{} lies in {}, which is emptied before and after each job", at.display(), place.display());
        Some(Problem::of(setting, what, "put it elsewhere, or mount it there by itself"))
    }

    /// The emptied place that a path lies in, unless a mount keeps it, and where it really is.
    fn emptied_around(&self, emptied: &[PathBuf], path: &Path) -> Option<(PathBuf, PathBuf)> {
        let at = self.real(path);
        emptied.iter().find_map(|place| {
            let top = real(place);
            let mount = under(&self.mounts, &at);
            let apart = mount.is_some_and(|mount| {
                mount.point.starts_with(&top) && mount.point != top && !(mount.in_memory() && mount.writable)
            });
            (at.starts_with(&top) && !apart).then(|| (place.clone(), at.clone()))
        })
    }

    /// What would survive jobs without, or by more than, the user's word.
    fn survivors(&self) -> Vec<Problem> {
        let (common, slate) = (self.common, self.slate);
        let apart: Vec<PathBuf> = common.hardware.iter().map(|hardware| hardware.place.directory.clone()).collect();
        let mut problems = Vec::new();
        for mount in slate.unnamed_mounts(&apart) {
            // It is told with the work directory.
            if self.real(&common.work_directory).starts_with(&mount) {
                continue;
            }
            let shown = mount.display();
            let what = format!("{shown} is mounted where everything is wiped for each job, and is not named");
            let as_cache = Named { setting: "OSCR_CACHE_DIRS", place: mount.clone(), purpose: Purpose::Cache };
            let nameable = mount.is_dir() && self.judge(&as_cache).is_none();
            let directories = real(&common.places.agent_directories());
            problems.push(if mount.starts_with(&directories) {
                let cure = "take that mount away: agents are made anew there, and what OSCR keeps of a registration \
                            (RUNNER_PERSISTENT) is in /var/lib/oscr";
                Problem::of("mounts", what, cure)
            } else if nameable {
                let cure = format!(
                    "name it (OSCR_CACHE_DIRS={shown}), to keep its content from job to job; or mount it elsewhere, or read-only"
                );
                Problem::of("OSCR_CACHE_DIRS", what, cure)
            } else {
                Problem::of("mounts", what, "mount it elsewhere, or read-only")
            });
        }
        for kept in slate.kept_too_much() {
            let cache = common.caches.iter().find(|cache| cache.place == *kept);
            let setting = cache.map_or("OSCR_CACHE_DIRS", |cache| cache.setting);
            if self.judge(&Named { setting, place: kept.clone(), purpose: Purpose::Cache }).is_some() {
                continue;
            }
            let what = format!("with {} nothing there would be wiped", kept.display());
            let inside = common.work_directory.join("_tool");
            let cure = format!("name the directory inside that is to survive, such as {}", inside.display());
            problems.push(Problem::of(setting, what, cure));
        }
        problems
    }
}
