//! A runner in a container, as a scenario sees it: by Docker, by PID 1's own words, and by what is in the container.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::engine::{Lines, docker, told};
use crate::patience::{LIMIT, patient};

/// A runner's container.
#[derive(Debug, Clone)]
pub struct Runner {
    /// Its full id.
    pub id: String,
}

/// Ends when the file `$1` is there.
const WAIT_FILE: &str = r#"until [ -e "$1" ]; do sleep 0.1; done"#;

/// Sends signal `$1` to the processes with the name `$2`; fails if there is none.
const SIGNAL: &str = r#"found=1
for process in /proc/[0-9]*; do
    if read -r name <"$process/comm" && [ "$name" = "$2" ] && kill "-$1" "${process#/proc/}"; then found=0; fi
done 2>/dev/null
exit $found"#;

impl Runner {
    /// Its host name: a part of each of its runners' names.
    pub fn host(&self) -> &str {
        &self.id[..12]
    }

    /// Both of its outputs, of all incarnations.
    pub fn log(&self) -> String {
        told(&["logs", &self.id]).map_or_else(|why| why, |(_, text)| text)
    }

    /// The lines of its log that have this part.
    pub fn lines_with(&self, part: &str) -> Vec<String> {
        self.log().lines().filter(|line| line.contains(part)).map(str::to_owned).collect()
    }

    /// Waits for a line of its log, past ones included.
    pub fn line(&self, part: &str) -> Result<String, String> {
        let lines = Lines::of(&["logs", "--follow", &self.id])?;
        lines.find(LIMIT, |line| line.contains(part)).map_err(|why| format!("no line has «{part}»: {why}"))
    }

    /// Waits until the container has ended, which it must with this code.
    pub fn exits(&self, code: i32) -> Result<(), String> {
        let line = Lines::of(&["wait", &self.id])?.find(LIMIT, |_| true);
        let line = line.map_err(|why| format!("the container should end with {code}: {why}"))?;
        if line == code.to_string() { Ok(()) } else { Err(format!("the container ended with {line}, not with {code}")) }
    }

    /// Sends PID 1 a signal.
    pub fn signal(&self, name: &str) -> Result<(), String> {
        docker(&["kill", "--signal", name, &self.id]).map(drop)
    }

    /// The next incarnation of a container that has ended.
    pub fn start(&self) -> Result<(), String> {
        docker(&["start", &self.id]).map(drop)
    }

    /// Runs a script in it as the container's user; its output, if it succeeds.
    pub fn exec(&self, script: &str, arguments: &[&str]) -> Result<String, String> {
        let (good, text) = told(&[&["exec", &self.id, "sh", "-c", script, "sh"], arguments].concat())?;
        if good { Ok(text) } else { Err(format!("a script in the container fails: {}", text.trim())) }
    }

    /// Waits until a job has made this file.
    pub fn file(&self, path: &str) -> Result<(), String> {
        let time = format!("{:.0}", patient(LIMIT).as_secs_f64());
        let (good, text) = told(&["exec", &self.id, "timeout", &time, "sh", "-c", WAIT_FILE, "sh", path])?;
        if good { Ok(()) } else { Err(format!("no job made {path}: {text}")) }
    }

    /// Makes a file that a job waits for.
    pub fn give(&self, path: &str) -> Result<(), String> {
        self.exec(r#": >"$1""#, &[path]).map(drop)
    }

    /// Sends a signal to each process of this name.
    pub fn signal_process(&self, name: &str, signal: &str) -> Result<(), String> {
        self.exec(SIGNAL, &[signal, name]).map(drop).map_err(|why| format!("no {name}: {why}"))
    }

    /// `oscr-entry status --json`.
    pub fn status(&self) -> Result<Value, String> {
        let text = docker(&["exec", &self.id, "/usr/local/bin/oscr-entry", "status", "--json"])?;
        serde_json::from_str(&text).map_err(|error| format!("the status is no JSON: {error}"))
    }

    /// Waits until the status is so.
    pub fn status_is(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value, String> {
        let until = Instant::now() + patient(LIMIT);
        loop {
            // PID 1 may not answer yet.
            match self.status() {
                Ok(status) if wanted(&status) => return Ok(status),
                _ if Instant::now() < until => {}
                Ok(status) => {
                    return Err(format!("after {} s it was not so that {what}: {status}", patient(LIMIT).as_secs()));
                }
                Err(why) => return Err(why),
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// Whether `oscr-entry health` is content.
    pub fn healthy(&self) -> Result<bool, String> {
        told(&["exec", &self.id, "/usr/local/bin/oscr-entry", "health"]).map(|(good, _)| good)
    }

    /// What PID 1 said of its jobs, the last one last.
    pub fn summaries(&self) -> Vec<Value> {
        let lines = self.lines_with(r#""message":"job summary""#);
        let line = |line: &String| serde_json::from_str::<Value>(line).ok();
        lines.iter().filter_map(line).map(|line| line["summary"].clone()).collect()
    }

    /// Result and cause of the only job of its log, as PID 1 said them.
    pub fn ended(&self) -> Result<(String, String), String> {
        let all = self.summaries();
        let [one] = all.as_slice() else { return Err(format!("{} summaries of jobs, not one", all.len())) };
        let word = |field: &str| one[field].as_str().unwrap_or("null").to_owned();
        Ok((word("result"), word("ended_by")))
    }
}
