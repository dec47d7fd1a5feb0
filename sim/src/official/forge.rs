//! The forge's control plane, as a scenario sees it: through a process in the forge's container, so that no port of this machine is needed.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::forge::{Event, Job, JobSpec, JobStatus, RequestRecord, RunnerView};
use crate::patience::{LIMIT, patient};
use crate::protocol::JobResult;

/// The longest of one wait at the forge.
const POLLED: Duration = Duration::from_secs(30);

/// A line to the process in the forge's container.
#[derive(Debug, Serialize, Deserialize)]
struct Question {
    method: String,
    path: String,
    body: String,
}

/// Its answer.
#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    status: u16,
    text: String,
}

/// `official ask`: puts the questions on standard input to the forge of this container.
pub fn ask() -> Result<(), String> {
    // Each question has a connection of its own: none is found closed.
    let agent = ureq::Agent::config_builder().proxy(None).http_status_as_error(false).max_idle_connections(0);
    let agent = agent.build().new_agent();
    let until = Instant::now() + patient(LIMIT);
    while let Err(error) = agent.get("http://127.0.0.1/_sim/health").call() {
        if Instant::now() > until {
            return Err(format!("the forge does not answer: {error}"));
        }
        thread::sleep(Duration::from_millis(20));
    }
    for line in std::io::stdin().lines() {
        let line = line.map_err(|error| error.to_string())?;
        let question: Question = serde_json::from_str(&line).map_err(|error| error.to_string())?;
        let url = format!("http://127.0.0.1/_sim{}", question.path);
        let answered = match question.method.as_str() {
            "GET" => agent.get(&url).call(),
            "DELETE" => agent.delete(&url).call(),
            _ => agent.post(&url).send(question.body),
        };
        let answer = answered.and_then(|mut answer| {
            let body = answer.body_mut().with_config().limit(64 << 20).read_to_string()?;
            Ok(Answer { status: answer.status().as_u16(), text: body })
        });
        let answer = answer.unwrap_or_else(|error| Answer { status: 0, text: error.to_string() });
        println!("{}", json!(answer));
    }
    Ok(())
}

/// A process in the forge's container, which asks.
#[derive(Debug)]
struct Asking {
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// A forge in a container.
#[derive(Debug)]
pub struct Forge {
    asking: Mutex<Asking>,
    /// Where runners reach it.
    pub url: String,
}

impl Forge {
    /// The forge in a running container.
    pub fn of(container: &str, program: &str) -> Result<Self, String> {
        let mut command = Command::new("docker");
        command.args(["exec", "--interactive", container, program, "ask"]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("docker cannot be run: {error}"))?;
        let (Some(questions), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("docker exec has no pipes".to_owned());
        };
        let asking = Asking { child, questions, answers: BufReader::new(answers) };
        Ok(Self { asking: Mutex::new(asking), url: format!("http://{container}") })
    }

    fn exchange<T: DeserializeOwned>(&self, method: &str, path: &str, body: &Value) -> Result<T, String> {
        let question = Question { method: method.to_owned(), path: path.to_owned(), body: body.to_string() };
        let mut asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        let mut line = String::new();
        let question = serde_json::to_string(&question).map_err(|error| error.to_string())?;
        writeln!(asking.questions, "{question}")
            .and_then(|()| asking.answers.read_line(&mut line))
            .map_err(|error| format!("the forge's container does not answer: {error}"))?;
        drop(asking);
        let answer: Answer =
            serde_json::from_str(&line).map_err(|_| "the forge's container does not answer".to_owned())?;
        if !(200..300).contains(&answer.status) {
            return Err(format!("forge: {method} {path}: {} {}", answer.status, answer.text));
        }
        let text = if answer.text.is_empty() { "null" } else { &answer.text };
        serde_json::from_str(text).map_err(|error| format!("forge: {path}: {error}"))
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, String> {
        self.exchange("GET", path, &Value::Null)
    }

    fn post(&self, path: &str, body: &Value) -> Result<Value, String> {
        self.exchange("POST", path, body)
    }

    /// Changes some of the forge's orders.
    pub fn order(&self, orders: Value) -> Result<(), String> {
        self.post("/orders", &orders).map(drop)
    }

    /// Has the forge give a runner up: its session is over, and its job is abandoned.
    pub fn let_go(&self, id: u64) -> Result<(), String> {
        self.post(&format!("/runners/{id}/let-go"), &Value::Null).map(drop)
    }

    /// Takes a registration away as an administrator would.
    pub fn unregister(&self, id: u64) -> Result<(), String> {
        self.exchange::<Value>("DELETE", &format!("/runners/{id}"), &Value::Null).map(drop)
    }

    /// Cancels a job as its user would.
    pub fn cancel(&self, id: u64) -> Result<(), String> {
        self.post(&format!("/jobs/{id}/cancel"), &Value::Null).map(drop)
    }

    /// Queues a job.
    pub fn submit(&self, job: &JobSpec) -> Result<u64, String> {
        let answer = self.post("/jobs", &json!(job))?;
        answer["id"].as_u64().ok_or_else(|| format!("forge: no job's id in {answer}"))
    }

    /// Queues a script for any runner.
    pub fn script(&self, name: &str, script: &str) -> Result<u64, String> {
        self.submit(&JobSpec::script(name, script))
    }

    /// A job as it is now.
    pub fn job(&self, id: u64) -> Result<Job, String> {
        self.get(&format!("/jobs/{id}"))
    }

    /// All registrations.
    pub fn runners(&self) -> Result<Vec<RunnerView>, String> {
        self.get("/runners")
    }

    /// All that was notable, in order.
    pub fn events(&self) -> Result<Vec<Event>, String> {
        self.get("/events")
    }

    /// The requests that came, the control plane's apart.
    pub fn requests(&self) -> Result<Vec<RequestRecord>, String> {
        self.get("/requests")
    }

    /// What broke the description of the forge's API, and secrets where none belongs.
    pub fn violations(&self) -> Result<Vec<String>, String> {
        self.get("/violations")
    }

    /// Waits until the job is at least so far.
    pub fn wait_job(&self, id: u64, status: JobStatus) -> Result<Job, String> {
        let until = Instant::now() + patient(LIMIT);
        let word = json!(status);
        let word = word.as_str().unwrap_or_default();
        loop {
            let job: Job = self.get(&format!("/jobs/{id}?wait={word}&timeout={}", POLLED.as_secs()))?;
            if job.status as u8 >= status as u8 {
                return Ok(job);
            }
            if Instant::now() > until {
                return Err(format!(
                    "the job «{}» is {} after {} s, not {word}",
                    job.name,
                    json!(job.status),
                    patient(LIMIT).as_secs()
                ));
            }
        }
    }

    /// Waits until the job is over, which must end so.
    pub fn ends(&self, id: u64, result: JobResult) -> Result<Job, String> {
        let job = self.wait_job(id, JobStatus::Completed)?;
        if job.result == Some(result) {
            return Ok(job);
        }
        let word = job.result.map_or("nothing", JobResult::on_the_wire);
        Err(format!(
            "the job «{}» is {word}, not {}; its log says: {}",
            job.name,
            result.on_the_wire(),
            last_of(&job.log)
        ))
    }

    /// Waits until `look` finds something, looking again at each of the forge's events.
    pub fn until<T>(&self, what: &str, look: impl Fn(&Self) -> Result<Option<T>, String>) -> Result<T, String> {
        let until = Instant::now() + patient(LIMIT);
        let mut seen = 0;
        loop {
            if let Some(found) = look(self)? {
                return Ok(found);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!("after {} s it was not so that {what}", patient(LIMIT).as_secs()));
            }
            let wait = if seen == 0 { 0.0 } else { left.min(Duration::from_secs(1)).as_secs_f64() };
            let events: Vec<Event> = self.get(&format!("/events?after={seen}&timeout={wait}"))?;
            seen = events.last().map_or(seen.max(1), |event| event.n);
        }
    }

    /// The listening runner of the container with this host name, if its id is greater than `after`.
    pub fn listening(&self, host: &str, after: u64) -> Result<RunnerView, String> {
        self.until("a new runner listens", |forge| {
            let idle = |r: &RunnerView| r.name.contains(host) && r.id > after && r.status == "online" && !r.busy;
            Ok(forge.runners()?.into_iter().find(idle))
        })
    }

    /// Waits until no registration is left.
    pub fn empty(&self) -> Result<(), String> {
        self.until("no registration is left", |forge| Ok(forge.runners()?.is_empty().then_some(())))
    }
}

impl Drop for Forge {
    fn drop(&mut self) {
        let asking = self.asking.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _ = asking.child.kill();
        let _ = asking.child.wait();
    }
}

/// The errors of a log, or its last lines, in one.
pub fn last_of(log: &str) -> String {
    let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    let errors: Vec<&str> = lines.iter().copied().filter(|line| line.starts_with("##[error]")).collect();
    let told = if errors.is_empty() { &lines } else { &errors };
    told[told.len().saturating_sub(3)..].join(" | ")
}
