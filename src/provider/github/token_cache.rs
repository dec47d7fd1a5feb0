//! A registration token that replicas share through a directory for root alone, so that many that start together ask once.
//!
//! A file per scope and credential holds the token and when it ends; a lock beside it is held while one is asked for. What is
//! found there is believed only if it looks exactly like our own work: anything else is replaced, and a directory that cannot
//! be used costs a request and nothing more.

use std::cell::RefCell;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::unistd::Uid;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};
use zeroize::Zeroizing;

use crate::config::Secret;
use crate::encode::{digest, seconds};
use crate::files;
use crate::provider::fault::Fault;

/// A token is not handed out any more when it has this long to live: the agent's configure step may take as long.
const MARGIN: Duration = Duration::from_secs(5 * 60);
/// No forge's registration token lives longer. One that claims to was not written by us.
const LONGEST: Duration = Duration::from_secs(2 * 60 * 60);
/// The longest file that is read, and the longest token, in bytes.
const LONGEST_FILE: u64 = 4096;
const LONGEST_TOKEN: usize = 1024;
/// How often a held lock is tried. It is held for one request.
const TRY_AGAIN: Duration = Duration::from_millis(50);
/// After so long the holder's request hangs, and everybody asks for himself.
const PATIENCE: Duration = Duration::from_secs(10);

/// The directory, and which token of it is in use.
#[derive(Debug)]
pub(super) struct TokenCache {
    directory: PathBuf,
    used: RefCell<Option<(PathBuf, Secret)>>,
}

/// A token as the forge gave it.
#[derive(Debug)]
pub(super) struct Minted {
    pub token: Secret,
    /// How long it lives from now on.
    pub lives: Duration,
}

/// A registration token as the last try left it, in memory alone.
#[derive(Debug)]
pub(super) struct Unspent {
    token: Secret,
    until: Instant,
    /// What it was asked for with.
    credential: Secret,
}

impl Unspent {
    #[must_use]
    pub(super) fn new(minted: Minted, credential: Secret) -> Self {
        Self { until: Instant::now() + minted.lives.min(LONGEST), token: minted.token, credential }
    }

    /// The token.
    pub(super) fn token(&self) -> Secret {
        self.token.clone()
    }

    /// Whether it was asked for with this credential, and lives for as long as a configure step may take.
    pub(super) fn is_good(&self, credential: &Secret) -> bool {
        self.credential == *credential && self.until.saturating_duration_since(Instant::now()) > MARGIN
    }
}

/// The content of a file.
#[derive(Serialize, Deserialize)]
struct KeptToken<'a> {
    version: u32,
    token: &'a str,
    /// Seconds since 1970, by this host's clock, which all who share the directory have.
    ends: u64,
}

impl TokenCache {
    /// The cache in a directory that is for root alone.
    #[must_use]
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory, used: RefCell::default() }
    }

    /// The token for `scope` and `credential`: the one that is kept, or what `mint` gives, which is kept for others.
    ///
    /// # Errors
    /// Those of `mint`. Trouble with the directory is logged, and the token asked for as without one.
    pub(super) async fn token(
        &self,
        scope: &str,
        credential: &Secret,
        mint: impl Future<Output = Result<Minted, Fault>>,
    ) -> Result<Secret, Fault> {
        let path = self.directory.join(name(scope, credential));
        if let Some(token) = read(&path) {
            tracing::debug!("using the registration token that another replica asked for");
            self.used.replace(Some((path, token.clone())));
            return Ok(token);
        }
        let lock = match self.lock(&path).await {
            Ok(lock) => lock,
            Err(error) => {
                tracing::warn!("{} cannot be locked: {error}; asking for a token of our own", self.directory.display());
                return mint.await.map(|minted| minted.token);
            }
        };
        // Whoever had the lock before us may have been given one.
        if let Some(token) = read(&path) {
            tracing::debug!("using the registration token that another replica has just asked for");
            self.used.replace(Some((path, token.clone())));
            return Ok(token);
        }
        let minted = mint.await?;
        if let Err(error) = write(&path, &minted) {
            tracing::warn!("{} cannot be written: {error}; this token is not shared", path.display());
        }
        drop(lock);
        self.used.replace(Some((path, minted.token.clone())));
        Ok(minted.token)
    }

    /// The token in use was refused: nobody else shall have it.
    pub(super) fn forget(&self) {
        if let Some((path, token)) = self.used.take()
            && read(&path).is_some_and(|kept| kept == token)
        {
            let _ = fs::remove_file(path);
        }
    }

    /// The lock of one token; `None` when its holder takes too long. It is tried rather than waited for, so that a request to
    /// stop is heard meanwhile.
    async fn lock(&self, path: &Path) -> io::Result<Option<File>> {
        let lock = open(&path.with_extension("lock"), OpenOptions::new().write(true).create(true))?;
        let until = Instant::now() + PATIENCE;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(Some(lock)),
                Err(TryLockError::Error(error)) => return Err(error),
                Err(TryLockError::WouldBlock) if Instant::now() >= until => return Ok(None),
                Err(TryLockError::WouldBlock) => sleep(TRY_AGAIN).await,
            }
            if read(path).is_some() {
                return Ok(None);
            }
        }
    }
}

fn name(scope: &str, credential: &Secret) -> String {
    format!("{}.json", digest(&["oscr registration token", scope, credential.expose()]))
}

/// Opens a file of ours, never through a link.
fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    options.mode(0o600).custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_CLOEXEC | nix::libc::O_NONBLOCK).open(path)
}

/// The kept token, if the file is as we write it and the token still has some time to live.
fn read(path: &Path) -> Option<Secret> {
    let file = match open(path, OpenOptions::new().read(true)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!("{} cannot be read: {error}; asking for another token", path.display());
            return None;
        }
    };
    match believed(file) {
        Ok(token) => token,
        Err(why) => {
            tracing::warn!("{} is not used: {why}; asking for another token", path.display());
            None
        }
    }
}

/// `Ok(None)` for a token that has ended.
fn believed(file: File) -> Result<Option<Secret>, String> {
    let meta = file.metadata().map_err(|error| error.to_string())?;
    if !meta.is_file() || meta.uid() != Uid::effective().as_raw() || meta.mode() & 0o077 != 0 {
        return Err("it is not a file for root alone".to_owned());
    }
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(LONGEST_FILE + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > LONGEST_FILE {
        return Err("it is too long".to_owned());
    }
    // The error would quote what it does not understand.
    let kept: KeptToken<'_> = serde_json::from_slice(&bytes).map_err(|_| "it is damaged".to_owned())?;
    let plain = kept.token.bytes().all(|byte| byte.is_ascii_graphic());
    if kept.version != 1 || kept.token.is_empty() || kept.token.len() > LONGEST_TOKEN || !plain {
        return Err("it holds no token".to_owned());
    }
    let left = Duration::from_secs(kept.ends.saturating_sub(seconds(SystemTime::now())));
    if left > LONGEST {
        return Err("its token claims to live for longer than any does".to_owned());
    }
    Ok((left > MARGIN).then(|| Secret::new(kept.token.to_owned())))
}

/// Keeps the token for others, unless it is about to end.
fn write(path: &Path, minted: &Minted) -> io::Result<()> {
    if minted.lives <= MARGIN {
        return Ok(());
    }
    let lives = minted.lives.min(LONGEST);
    let kept = KeptToken { version: 1, token: minted.token.expose(), ends: seconds(SystemTime::now() + lives) };
    let json = Zeroizing::new(serde_json::to_vec(&kept)?);
    files::replace(path, &json, 0o600)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;
    use std::rc::Rc;

    const HOUR: Duration = Duration::from_secs(3600);

    fn run<T>(test: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, test)
    }

    fn secret(text: &str) -> Secret {
        Secret::new(text.to_owned())
    }

    /// What the cache gives, and whether the forge was asked.
    async fn ask(cache: &TokenCache, scope: &str, credential: &str, lives: Duration) -> (String, bool) {
        let asked = Cell::new(false);
        let mint = async {
            asked.set(true);
            Ok(Minted { token: secret("a-fresh-token"), lives })
        };
        let token = cache.token(scope, &secret(credential), mint).await.unwrap();
        (token.expose().to_owned(), asked.get())
    }

    fn only_file(directory: &Path) -> PathBuf {
        let mut files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        files.find(|path| path.extension().is_some_and(|ending| ending == "json")).unwrap()
    }

    #[test]
    fn a_hundred_replicas_make_one_request() {
        let directory = tempfile::tempdir().unwrap();
        run(async {
            let asked = Rc::new(Cell::new(0));
            let replicas = (0..100).map(|_| {
                let (cache, asked) = (TokenCache::new(directory.path().to_owned()), Rc::clone(&asked));
                tokio::task::spawn_local(async move {
                    let mint = async {
                        asked.set(asked.get() + 1);
                        sleep(Duration::from_millis(300)).await;
                        Ok(Minted { token: secret("the-shared-token"), lives: HOUR })
                    };
                    cache.token("scope", &secret("credential"), mint).await.unwrap().expose().to_owned()
                })
            });
            for replica in replicas.collect::<Vec<_>>() {
                assert_eq!(replica.await.unwrap(), "the-shared-token");
            }
            assert_eq!(asked.get(), 1);
        });
    }

    #[test]
    fn a_holder_that_hangs_does_not_hang_the_others() {
        let directory = tempfile::tempdir().unwrap();
        run(async {
            let cache = TokenCache::new(directory.path().to_owned());
            let lock = cache.lock(&directory.path().join(name("s", &secret("cred")))).await;
            assert!(lock.as_ref().unwrap().is_some());
            let before = Instant::now();
            assert_eq!(ask(&cache, "s", "cred", HOUR).await, ("a-fresh-token".to_owned(), true));
            assert!(before.elapsed() >= PATIENCE && before.elapsed() < PATIENCE * 2);
        });
    }

    #[test]
    fn a_token_is_for_one_scope_and_one_credential() {
        let directory = tempfile::tempdir().unwrap();
        run(async {
            let cache = TokenCache::new(directory.path().to_owned());
            assert!(ask(&cache, "orgs/a", "credential-1", HOUR).await.1);
            assert!(!ask(&cache, "orgs/a", "credential-1", HOUR).await.1);
            assert!(ask(&cache, "orgs/a", "credential-2", HOUR).await.1);
            assert!(ask(&cache, "orgs/b", "credential-1", HOUR).await.1);
            assert!(!directory.path().read_dir().unwrap().any(|entry| {
                let entry = entry.unwrap();
                entry.metadata().unwrap().mode() & 0o077 != 0
            }));
        });
    }

    #[test]
    fn a_token_that_is_about_to_end_is_not_shared() {
        let directory = tempfile::tempdir().unwrap();
        run(async {
            let cache = TokenCache::new(directory.path().to_owned());
            assert!(ask(&cache, "s", "credential", MARGIN).await.1);
            assert!(ask(&cache, "s", "credential", MARGIN + Duration::from_secs(60)).await.1);
            assert!(!ask(&cache, "s", "credential", HOUR).await.1);
        });
    }

    #[test]
    fn a_token_that_was_refused_is_forgotten_but_not_a_newer_one() {
        let directory = tempfile::tempdir().unwrap();
        run(async {
            let cache = TokenCache::new(directory.path().to_owned());
            assert!(ask(&cache, "s", "credential", HOUR).await.1);
            cache.forget();
            assert!(ask(&cache, "s", "credential", HOUR).await.1);
            let newer = Minted { token: secret("a-newer-token"), lives: HOUR };
            write(&only_file(directory.path()), &newer).unwrap();
            cache.forget();
            assert_eq!(ask(&cache, "s", "credential", HOUR).await, ("a-newer-token".to_owned(), false));
        });
    }

    #[tokio::test(start_paused = true)]
    async fn an_unspent_token_is_good_for_its_credential_while_it_lives() {
        let unspent = |lives| Unspent::new(Minted { token: secret("a-token"), lives }, secret("credential"));
        let hour = unspent(HOUR);
        assert!(hour.is_good(&secret("credential")) && !hour.is_good(&secret("another")));
        assert!(!unspent(Duration::ZERO).is_good(&secret("credential")), "its end is not known");
        tokio::time::advance(HOUR - MARGIN).await;
        assert!(!hour.is_good(&secret("credential")));
    }

    #[test]
    fn what_is_damaged_or_hostile_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let now = seconds(SystemTime::now());
        let good = |token: &str, ends: u64| format!(r#"{{"version":1,"token":"{token}","ends":{ends}}}"#);
        let contents = [
            String::new(),
            "{".to_owned(),
            "\u{0}\u{1}".to_owned(),
            good("", now + 1000),
            good("two words", now + 1000),
            good(r"line\nbreak", now + 1000),
            good("for-ever", now + 100 * 24 * 3600),
            good("long-ago", 5),
            good(&"x".repeat(5000), now + 1000),
            good("of-another-version", now + 1000).replace(":1,", ":2,"),
            " ".repeat(100_000),
        ];
        run(async {
            let cache = TokenCache::new(directory.path().to_owned());
            assert!(ask(&cache, "s", "credential", HOUR).await.1);
            let file = only_file(directory.path());
            for content in contents {
                fs::write(&file, &content).unwrap();
                assert_eq!(
                    ask(&cache, "s", "credential", HOUR).await,
                    ("a-fresh-token".to_owned(), true),
                    "{content:.80}"
                );
                assert!(!ask(&cache, "s", "credential", HOUR).await.1, "it was not replaced: {content:.80}");
            }
            fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
            assert!(ask(&cache, "s", "credential", HOUR).await.1, "others could have read it");
            let elsewhere = directory.path().join("elsewhere");
            fs::rename(&file, &elsewhere).unwrap();
            std::os::unix::fs::symlink(&elsewhere, &file).unwrap();
            assert!(ask(&cache, "s", "credential", HOUR).await.1, "a link is not followed");
            fs::remove_file(&file).unwrap();
            nix::unistd::mkfifo(&file, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
            assert!(ask(&cache, "s", "credential", HOUR).await.1, "nobody waits for a pipe");
        });
    }
}
