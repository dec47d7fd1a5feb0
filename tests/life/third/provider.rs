//! The third forge as a provider: its agent has no worker process and no hooks, needs the grant when it runs, and the forge can
//! keep jobs from a registration.

use std::path::Path;

use nix::sys::signal::Signal;
use oscr::config::table::{Setting, SettingKind};
use oscr::config::{Common, Reader, Secret, SecretSource};
use oscr::init::Ended;
use oscr::provider::finding::Finding;
use oscr::provider::http::{Authorization, Body, Http, Reply};
use oscr::provider::{
    AgentFacts, Answer, Candidate, Examination, Fault, Forge, Forges, Grant, JobSign, LabelledBy, Line, Meaning,
    Provider, Reading, Registration, Released, Releasing, Standing, Step, StopPlan,
};
use reqwest::Method;
use reqwest::header::HeaderMap;
use serde::Deserialize;
use serde_json::json;

/// All that this program serves.
pub const FORGES: Forges = Forges(&[FORGE]);

const FORGE: Forge = Forge { name: "third", agent: &AGENT, settings: SETTINGS, read };

const SETTINGS: &[Setting] = &[
    Setting {
        name: "THIRD_URL",
        kind: SettingKind::Text,
        default: "needed",
        about: "Where the forge is.",
        aliases: &[],
    },
    Setting {
        name: "THIRD_TOKEN",
        kind: SettingKind::Secret,
        default: "needed",
        about: "What may register.",
        aliases: &[],
    },
];

/// The agent's one program.
pub const LISTENER: &str = "bin/third-agent";

const AGENT: AgentFacts = AgentFacts {
    title: "third forge's agent",
    listener: LISTENER,
    job: JobSign::Words,
    words: &[
        Line::new("ready for work", "", Meaning::Listening),
        Line::new("task ", " begins", Meaning::Running),
        Line::new("task ", "", Meaning::Completed(" ends: ")),
    ],
    traces: &[],
    process_end: None,
    worker_codes: &[],
    own_codes: &[0],
    configuration: &[".registration"],
    env: &[],
    env_allowed: &[],
    env_kept_back: &[],
    input_prefix: "THIRD_INPUT_",
    unpublished: None,
    proxy: None,
    hooks: None,
    docker_label: LabelledBy::Root,
    stop: StopPlan { finish: None, abort: Signal::SIGINT },
};

/// One such forge.
struct Third {
    url: String,
    token: SecretSource,
    http: Http,
}

#[derive(Deserialize)]
struct Made {
    id: u64,
    key: Secret,
}

#[derive(Deserialize)]
struct Seen {
    busy: bool,
}

fn read(reader: &mut Reader<'_>, common: &Common) -> Option<Box<dyn Provider>> {
    let url = reader.text("THIRD_URL");
    if url.is_none() {
        reader.problem("THIRD_URL", "nothing says where the forge is", "write its address");
    }
    let token = reader.secret("THIRD_TOKEN");
    if token.is_none() {
        reader.problem("THIRD_TOKEN", "there is no credential", "set THIRD_TOKEN_FILE");
    }
    let (url, token) = (url?, token?);
    let http = Http::new(common.network.clone(), &url, HeaderMap::new());
    Some(Box::new(Third { url, token, http }))
}

impl Third {
    async fn ask(&self, method: Method, url: String, body: Body<'_>, expected: u16) -> Result<Reply, Fault> {
        let token = self.token.read()?;
        let reply = self.http.send(method, &url, Authorization::Bearer(&token), body).await?;
        match reply.status {
            status if status == expected || status == 404 || status == 409 => Ok(reply),
            status => Err(Fault::denied(format!("{url} answered {status}"), "look at the test")),
        }
    }

    fn runner(registration: &Registration) -> String {
        format!("{}/runners/{}", registration.scope, registration.name)
    }
}

impl Provider for Third {
    fn name(&self) -> &'static str {
        FORGE.name
    }

    fn scope(&self) -> String {
        self.url.clone()
    }

    fn owner(&self) -> Option<String> {
        None
    }

    fn agent(&self) -> &'static AgentFacts {
        &AGENT
    }

    fn http(&self) -> &Http {
        &self.http
    }

    fn open_url(&self) -> String {
        format!("{}/version", self.url)
    }

    fn secrets(&self) -> Vec<&SecretSource> {
        vec![&self.token]
    }

    fn registration(&self, name: &str) -> Registration {
        Registration { id: None, name: name.to_owned(), scope: self.url.clone() }
    }

    fn grant<'a>(&'a self, wanted: Candidate<'a>) -> Answer<'a, Grant> {
        Box::pin(async move {
            let registration = self.registration(wanted.name);
            let url = Self::runner(&registration);
            let body = json!({ "work": wanted.work_directory });
            let made: Made = self.ask(Method::PUT, url, Body::Json(&body), 201).await?.json()?;
            Ok(Grant {
                registration: Some(Registration { id: Some(made.id), ..registration }),
                files: vec![(".registration".to_owned(), format!("{}\n", made.id).into_bytes().into())],
                credential: Some(made.key),
                ..Grant::default()
            })
        })
    }

    fn configure(&self, _grant: &Grant, _wanted: Candidate<'_>) -> Option<Step> {
        None
    }

    fn configure_failed(&self, what: &str, _said: &[String]) -> Fault {
        Fault::Unreachable(what.to_owned())
    }

    fn identify<'a>(&'a self, name: &'a str, _directory: &'a Path) -> Answer<'a, Registration> {
        Box::pin(async move { Ok(self.registration(name)) })
    }

    fn run(&self, registration: &Registration, grant: &Grant) -> Step {
        let secrets = grant.credential.clone().map(|key| ("THIRD_INPUT_KEY", key)).into_iter().collect();
        Step { program: LISTENER, args: vec!["work".to_owned(), registration.name.clone()], secrets }
    }

    fn read_exit(&self, ended: Ended, job_seen: bool, _words: &[String]) -> Reading {
        match ended {
            Ended::Code(0) if job_seen => Reading::Done,
            ended => Reading::Retry(format!("it ended ({ended})")),
        }
    }

    fn releasing(&self, _job_done: bool) -> Releasing {
        Releasing::Request
    }

    fn disable<'a>(&'a self, registration: &'a Registration) -> Option<Answer<'a, ()>> {
        Some(Box::pin(async move {
            let url = format!("{}/disable", Self::runner(registration));
            self.ask(Method::POST, url, Body::Empty, 204).await.map(|_| ())
        }))
    }

    fn release<'a>(&'a self, registration: &'a Registration) -> Answer<'a, Released> {
        Box::pin(async move {
            let reply = self.ask(Method::DELETE, Self::runner(registration), Body::Empty, 204).await?;
            Ok(if reply.status == 409 { Released::Busy } else { Released::Gone })
        })
    }

    fn standing<'a>(&'a self, registration: &'a Registration) -> Answer<'a, Standing> {
        Box::pin(async move {
            let reply = self.ask(Method::GET, Self::runner(registration), Body::Empty, 200).await?;
            Ok(match reply.status {
                404 => Standing::Unknown,
                _ if reply.json::<Seen>()?.busy => Standing::Busy,
                _ => Standing::Online,
            })
        })
    }

    fn examine<'a>(&'a self, _version: Option<&'a str>) -> Examination<'a> {
        Box::pin(async { vec![Finding::ok("credential", "may register")] })
    }
}
