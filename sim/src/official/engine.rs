//! Docker, by its command, and what of it is ours.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::patience::patient;

/// Everything that is made has this label, with a value of its own for each run.
const LABEL: &str = "oscr.official";

/// The machine's Docker, for one run of the table.
#[derive(Debug)]
pub struct Engine {
    /// All names begin with it.
    pub prefix: String,
    /// Nothing more is made.
    over: AtomicBool,
    /// So many commands are just making something.
    making: AtomicUsize,
    guests: Mutex<Vec<Guests>>,
}

/// What a runner's jobs make in the machine's Docker and on the machine, which the run's label does not mark.
#[derive(Debug)]
struct Guests {
    /// The image of the jobs' containers.
    image: String,
    /// A part of the name of the agent's root, for which Docker makes an empty folder of the machine's.
    host: String,
    /// An image with a shell, to remove that.
    shell: String,
}

/// What a command came to.
fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn output(arguments: &[&str]) -> Result<Output, String> {
    Command::new("docker")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("docker cannot be run: {error}"))
}

/// Runs docker, which must succeed; its standard output without the last line's end.
pub fn docker(arguments: &[&str]) -> Result<String, String> {
    let output = output(arguments)?;
    if output.status.success() {
        return Ok(text_of(&output.stdout).trim_end().to_owned());
    }
    Err(format!("docker {}: {}", arguments[0], text_of(&output.stderr).trim()))
}

/// Runs docker: whether it succeeded, and both of its outputs.
pub fn told(arguments: &[&str]) -> Result<(bool, String), String> {
    let output = output(arguments)?;
    Ok((output.status.success(), text_of(&output.stdout) + &text_of(&output.stderr)))
}

impl Engine {
    /// Asks whether Docker answers, and finds a name.
    pub fn new() -> Result<Self, String> {
        docker(&["version", "--format", "{{.Server.Version}}"])?;
        let mut number = [0; 4];
        getrandom::fill(&mut number).map_err(|error| error.to_string())?;
        let prefix = std::env::var("OSCR_TEST_PREFIX").ok().filter(|prefix| !prefix.is_empty());
        let prefix = format!("{}-{:x}", prefix.as_deref().unwrap_or("official"), u32::from_ne_bytes(number));
        Ok(Self { prefix, over: AtomicBool::new(false), making: AtomicUsize::new(0), guests: Mutex::default() })
    }

    /// Whether the run was ended.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    fn label(&self) -> String {
        format!("{LABEL}={}", self.prefix)
    }

    /// `docker VERB… --label OURS ARGUMENTS…`, unless the run is over: what it makes is removed at the end.
    pub fn make(&self, verb: &[&str], arguments: &[&str]) -> Result<String, String> {
        self.making.fetch_add(1, Ordering::SeqCst);
        let made = if self.over.load(Ordering::SeqCst) {
            Err("the run is over".to_owned())
        } else {
            docker(&[verb, &["--label", &self.label()], arguments].concat())
        };
        self.making.fetch_sub(1, Ordering::SeqCst);
        made
    }

    /// The ids of what one command lists of ours.
    fn listed(&self, command: &[&str]) -> Vec<String> {
        let filter = format!("label={}", self.label());
        let listed = docker(&[command, &["--quiet", "--filter", &filter]].concat()).unwrap_or_default();
        listed.lines().map(str::to_owned).collect()
    }

    /// Removes the containers of one scenario, with their volumes.
    pub fn remove(&self, containers: &[String]) {
        if !containers.is_empty() {
            let ids: Vec<&str> = containers.iter().map(String::as_str).collect();
            // They may be gone.
            let _ = told(&[&["rm", "--force", "--volumes"], &ids[..]].concat());
        }
    }

    /// The jobs of the runner with this host name use the machine's Docker, with containers of this image.
    pub fn has_guests(&self, image: &str, host: &str, shell: &str) {
        let guests = Guests { image: image.to_owned(), host: host.to_owned(), shell: shell.to_owned() };
        self.guests.lock().unwrap_or_else(PoisonError::into_inner).push(guests);
    }

    /// Removes what jobs made, once their runners are gone.
    fn remove_guests(&self) {
        for Guests { image, host, shell } in self.guests.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let filter = format!("ancestor={image}");
            let networks = ["ps", "--all", "--no-trunc", "--filter", &filter, "--format", "{{.Networks}}"];
            let networks = docker(&networks).unwrap_or_default();
            let containers = docker(&["ps", "--all", "--quiet", "--filter", &filter]).unwrap_or_default();
            self.remove(&containers.lines().map(str::to_owned).collect::<Vec<_>>());
            for network in networks.lines().flat_map(|line| line.split(',')).filter(|name| name.starts_with("github_"))
            {
                let _ = told(&["network", "rm", network]);
            }
            let _ = told(&["rmi", "--force", &image]);
            let clean = format!("rm -rf /machine/runner/*{host}*; rmdir /machine/runner 2>/dev/null || true");
            let arguments = ["run", "--rm", "--user", "0:0", "--volume", "/:/machine", "--network", "none"];
            let _ = told(
                &[&arguments[..], &["--label", &self.label(), "--entrypoint", "sh", &shell, "-c", &clean]].concat(),
            );
        }
    }

    /// Removes all that was made in this run.
    pub fn remove_all(&self) -> Result<(), String> {
        self.over.store(true, Ordering::SeqCst);
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            self.remove(&self.listed(&["ps", "--all"]));
            self.remove_guests();
            for network in self.listed(&["network", "ls"]) {
                let _ = told(&["network", "rm", &network]);
            }
            for volume in self.listed(&["volume", "ls"]) {
                let _ = told(&["volume", "rm", "--force", &volume]);
            }
            // What was just being made when the end came is there a moment later.
            let making = self.making.load(Ordering::SeqCst) > 0;
            let left =
                [&["ps", "--all"][..], &["network", "ls"], &["volume", "ls"]].map(|all| self.listed(all)).concat();
            if left.is_empty() && !making {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(format!(
                    "not removed: {} (docker ps --all --filter label={})",
                    left.join(" "),
                    self.label()
                ));
            }
            thread::sleep(Duration::from_millis(200));
        }
    }
}

/// The lines that a docker command prints, as it prints them; the command ends with this.
pub struct Lines {
    child: Child,
    lines: Receiver<String>,
}

impl Lines {
    /// Both outputs of docker, in one.
    pub fn of(arguments: &[&str]) -> Result<Self, String> {
        let start = || -> std::io::Result<(Child, std::io::PipeReader)> {
            let (reader, writer) = std::io::pipe()?;
            let mut command = Command::new("docker");
            command.args(arguments).stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
            Ok((command.spawn()?, reader))
        };
        let (child, mut reader) = start().map_err(|error| format!("docker cannot be run: {error}"))?;
        let (sender, lines) = channel();
        thread::spawn(move || {
            let mut buffered = BufReader::new(reader.by_ref());
            let mut line = Vec::new();
            while matches!(buffered.read_until(b'\n', &mut line), Ok(1..)) {
                if sender.send(text_of(&line).trim_end().to_owned()).is_err() {
                    return;
                }
                line.clear();
            }
        });
        Ok(Self { child, lines })
    }

    /// The next line that `wanted` accepts, or why there is none.
    pub fn find(&self, within: Duration, wanted: impl Fn(&str) -> bool) -> Result<String, String> {
        let until = Instant::now() + patient(within);
        loop {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) if wanted(&line) => return Ok(line),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => return Err(format!("not within {} s", patient(within).as_secs())),
                Err(RecvTimeoutError::Disconnected) => return Err("the container ended".to_owned()),
            }
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
