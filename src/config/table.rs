//! The list of settings: the one source of the reader's aliases, of `oscr-entry check` and of `docs/configuration.md`.

use std::fmt::Write as _;

/// How a setting's value is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettingKind {
    /// Any text.
    Text,
    /// Strictly true or false.
    Flag,
    /// Seconds, or a number with `s`, `m` or `h`.
    Duration,
    /// A number of bytes, with `k`, `m`, `g` or `t` for powers of 1024.
    Size,
    /// A list separated by commas.
    List,
    /// The path of a file or a directory.
    Path,
    /// A list of paths.
    Paths,
    /// A secret: `NAME_FILE` names a file that holds it, `NAME` is the value itself.
    Secret,
}

/// One setting.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// The variable's name; of several variables, what their names begin with, and `*`.
    pub name: &'static str,
    /// How its value is read.
    pub kind: SettingKind,
    /// What holds when it is unset, in words.
    pub default: &'static str,
    /// What it does.
    pub about: &'static str,
    /// Names that other containers use for the same.
    pub aliases: &'static [&'static str],
}

impl Setting {
    /// All names that it is read under: its own, then those that other containers use.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + use<> {
        std::iter::once(self.name).chain(self.aliases.iter().copied())
    }
}

/// The settings that every provider has.
pub const COMMON: &[Setting] = &[
    Setting {
        name: "CI_PROVIDER",
        kind: SettingKind::Text,
        default: "set by the image",
        about: "The forge: `github` or `azure-devops`.",
        aliases: &[],
    },
    Setting {
        name: "RUNNER_NAME_PREFIX",
        kind: SettingKind::Text,
        default: "`oscr`",
        about: "The runner's name is `prefix-<hostname>-<4 hex>`, new for each incarnation, at most 64 characters.",
        aliases: &[],
    },
    Setting {
        name: "RUNNER_NAME",
        kind: SettingKind::Text,
        default: "unset",
        about: "An exact name. Only where no second replica can have it: needs `OSCR_ALLOW_FIXED_NAME=true`. An offline agent of this name is removed; one that is online keeps it, and this container is `denied`.",
        aliases: &[],
    },
    Setting {
        name: "OSCR_ALLOW_FIXED_NAME",
        kind: SettingKind::Flag,
        default: "false",
        about: "Confirms that `RUNNER_NAME` is used by one container only.",
        aliases: &[],
    },
    Setting {
        name: "RUNNER_LABELS",
        kind: SettingKind::List,
        default: "`linux,docker,self-hosted`",
        about: "Labels that jobs select the runner by, besides what the agent adds.",
        aliases: &["LABELS"],
    },
    Setting {
        name: "OSCR_ADD_LABELS_*",
        kind: SettingKind::List,
        default: "unset",
        about: "More labels, whatever `RUNNER_LABELS` or `AGENT_LABELS` says: any number of such settings, each named by who adds, such as `OSCR_ADD_LABELS_GPU`. [More](#what-compose-files-add).",
        aliases: &[],
    },
    Setting {
        name: "RUNNER_WORKDIR",
        kind: SettingKind::Path,
        default: "`/work`",
        about: "Where jobs work: an absolute path that this container alone uses, wiped before and after each job.",
        aliases: &[],
    },
    Setting {
        name: "OSCR_CACHE_DIRS",
        kind: SettingKind::Paths,
        default: "empty",
        about: "Directories whose content survives jobs, such as a volume on `/work/_tool`; with them `RUNNER_TOOL_CACHE`, `AGENT_TOOLSDIRECTORY` and `ACTIONS_RUNNER_ACTION_ARCHIVE_CACHE`, where set. Every job can change what later ones find there.",
        aliases: &[],
    },
    Setting {
        name: "OSCR_CACHE_MAX",
        kind: SettingKind::Size,
        default: "unset: no cap",
        about: "How large each of these directories may be. Before a runner registers, what was not used for longest is removed from one that is larger.",
        aliases: &[],
    },
    Setting {
        name: "OSCR_TAINT",
        kind: SettingKind::Text,
        default: "`refuse`",
        about: "When a job changed what it should not be able to, outside of what is wiped: `refuse` takes no further job in this container, `warn` says so once, `off` says nothing.",
        aliases: &[],
    },
    Setting {
        name: "RUNNER_PERSISTENT",
        kind: SettingKind::Flag,
        default: "false",
        about: "Keep one registration over many jobs, restarts and stops. The slate is still cleaned between jobs.",
        aliases: &[],
    },
    Setting {
        name: "OSCR_AGENT_UPDATE",
        kind: SettingKind::Text,
        default: "`auto`",
        about: "Newer agents than the image's: `auto` fetches one in time where the forge gives no jobs to old ones (github.com, `*.ghe.com`), `true` as soon as the forge offers one, `false` never. See [Another version of the agent](#another-version-of-the-agent).",
        aliases: &[],
    },
    Setting {
        name: "OSCR_AGENT_CACHE",
        kind: SettingKind::Path,
        default: "unset: each container fetches its own",
        about: "A directory for root alone, shared by the containers of this host, where one fetches the archive of a newer agent for all.",
        aliases: &[],
    },
    Setting {
        name: "OSCR_AGENT_USER",
        kind: SettingKind::Text,
        default: "`runner`",
        about: "The user that the agent and its jobs run as: `USER[:GROUP]`, names or numbers. Ignored when the container itself is not root.",
        aliases: &[],
    },
    Setting {
        name: "OSCR_STOP_TIMEOUT",
        kind: SettingKind::Duration,
        default: "`30m`",
        about: "How long a running job may take to finish after the first stop signal. `stop_grace_period` must be longer than this plus three times `OSCR_KILL_TIMEOUT` and 20 s.",
        aliases: &[],
    },
    Setting {
        name: "OSCR_KILL_TIMEOUT",
        kind: SettingKind::Duration,
        default: "`30s`",
        about: "How long a cancelled job may take to end before it is killed, and how long the forge may then take to let the registration go. An agent needs 12 to 23 s to cancel its job and say so: less than 20 s is warned of.",
        aliases: &[],
    },
    Setting {
        name: "OSCR_MIN_UPTIME",
        kind: SettingKind::Duration,
        default: "`10s`",
        about: "The shortest life of an incarnation. Docker's restart back-off doubles for containers that live less than 10 s.",
        aliases: &[],
    },
    Setting {
        name: "OSCR_START_JITTER",
        kind: SettingKind::Duration,
        default: "`2s`",
        about: "Up to how long a container that others may have started with waits before its first request: a random part of this. The next life after a job never waits. See docs/reliability.md.",
        aliases: &[],
    },
    Setting {
        name: "OSCR_MAX_IDLE",
        kind: SettingKind::Duration,
        default: "unset: for ever",
        about: "How long a runner may listen without a job. It is then removed from the forge, which refuses that if it has just given out a job, and the container exits with 0.",
        aliases: &[],
    },
    Setting {
        name: "OSCR_JOB_MAX",
        kind: SettingKind::Duration,
        default: "unset: for ever",
        about: "How long a job may run before it is cancelled, whatever the forge thinks of it.",
        aliases: &[],
    },
    Setting {
        name: "OSCR_WATCH_INTERVAL",
        kind: SettingKind::Duration,
        default: "`10m`",
        about: "How often, give or take a fifth, the forge is asked whether an idle runner's registration exists and is online, and what it thinks of one whose job runs. 0: never.",
        aliases: &[],
    },
    Setting {
        name: "OSCR_OFFLINE_TIMEOUT",
        kind: SettingKind::Duration,
        default: "`3m`",
        about: "How long the forge may call a runner offline whose listener seems well, before it is replaced.",
        aliases: &[],
    },
    Setting {
        name: "OSCR_JOB_OFFLINE_TIMEOUT",
        kind: SettingKind::Duration,
        default: "`15m`",
        about: "How long the forge may call a runner offline and not busy whose job runs, in each of its answers, before the job is ended. That it does not know the runner, or does not answer, ends none. 0: never.",
        aliases: &[],
    },
    Setting {
        name: "OSCR_WORKER_TIMEOUT",
        kind: SettingKind::Duration,
        default: "`60s`",
        about: "How long the listener may have a job without a worker that runs it, before it is replaced.",
        aliases: &[],
    },
    Setting {
        name: "OSCR_JOB_ENV",
        kind: SettingKind::List,
        default: "empty",
        about: "More variables to hand to the agent and its jobs: names, or prefixes ending in `*`. Never settings that hold a secret.",
        aliases: &[],
    },
    Setting {
        name: "OSCR_ADD_JOB_ENV_*",
        kind: SettingKind::List,
        default: "unset",
        about: "The same, whatever `OSCR_JOB_ENV` says: any number of such settings, as with labels.",
        aliases: &[],
    },
    Setting {
        name: "OSCR_SUDO",
        kind: SettingKind::Flag,
        default: "set by the image: false, or true if it was built with `OSCR_SUDO=true`",
        about: "Let sudo work in jobs: they are not kept from gaining privileges, and are root in the container when they want to be. See docs/security.md.",
        aliases: &[],
    },
    Setting {
        name: "OSCR_ALLOW_FORKS",
        kind: SettingKind::Flag,
        default: "false",
        about: "Run jobs for pull requests from forks.",
        aliases: &[],
    },
    Setting {
        name: "OSCR_ALLOW_REPOS",
        kind: SettingKind::List,
        default: "unset: all",
        about: "Run only jobs of these repositories: `owner/name`, or `owner/*`.",
        aliases: &[],
    },
    Setting {
        name: "OSCR_ALLOW_EVENTS",
        kind: SettingKind::List,
        default: "unset: all",
        about: "Run only jobs for these events, such as `push,workflow_*`.",
        aliases: &[],
    },
    Setting {
        name: "OSCR_ALLOW_REFS",
        kind: SettingKind::List,
        default: "unset: all",
        about: "Run only jobs for these branches (`main`, `release/*`) or full refs (`refs/tags/v*`, `refs/pull/*/merge`).",
        aliases: &[],
    },
    Setting {
        name: "DOCKER_HOST",
        kind: SettingKind::Text,
        default: "unset: `/var/run/docker.sock`, if it is mounted",
        about: "The Docker that jobs use: `unix:///path` or `tcp://host:port`. Handed on to jobs, and linked to from where tools look for a socket.",
        aliases: &[],
    },
    Setting {
        name: "OSCR_DOCKER_WAIT",
        kind: SettingKind::Duration,
        default: "`60s` with `DOCKER_HOST` or `OSCR_DOCKERD`, else 0",
        about: "How long Docker may take to answer before each registration; no job is taken before it does. 0 does not ask.",
        aliases: &[],
    },
    Setting {
        name: "OSCR_DOCKERD",
        kind: SettingKind::Flag,
        default: "false",
        about: "Run a Docker engine of our own beside the agent, in images that have one; all that it keeps goes with the job. Needs a privileged container or a runtime that is a sandbox. See docs/security.md.",
        aliases: &[],
    },
    Setting {
        name: "OSCR_DOCKERD_MIRRORS",
        kind: SettingKind::List,
        default: "empty",
        about: "Registry mirrors for that engine: URLs.",
        aliases: &["REGISTRY_MIRRORS"],
    },
    Setting {
        name: "OSCR_DOCKERD_MTU",
        kind: SettingKind::Text,
        default: "unset: Docker's own choice",
        about: "The MTU of its containers' networks, 68 to 65535.",
        aliases: &[],
    },
    Setting {
        name: "OSCR_DOCKERD_STORAGE",
        kind: SettingKind::Text,
        default: "unset: Docker's own choice",
        about: "Its storage driver: `overlay2`, `fuse-overlayfs` or `vfs`.",
        aliases: &[],
    },
    Setting {
        name: "OSCR_DOCKER_GID0",
        kind: SettingKind::Flag,
        default: "false",
        about: "Give the agent group 0 when the mounted Docker socket belongs to it.",
        aliases: &[],
    },
    Setting {
        name: "RUNNER_RESOURCE_ID",
        kind: SettingKind::Text,
        default: "unset: no lock",
        about: "The shared hardware that a job needs: `board-1`, `board-1,power-2` (all of them) or `board-1|board-2` (any one; the job finds its name in `OSCR_RESOURCE`).",
        aliases: &[],
    },
    Setting {
        name: "RUNNER_LOCK_DIR",
        kind: SettingKind::Path,
        default: "`/var/lock/oscr`",
        about: "A directory of the host, mounted into every container that shares the hardware.",
        aliases: &[],
    },
    Setting {
        name: "OSCR_LOCK_SCOPE",
        kind: SettingKind::Text,
        default: "`job`, or `listener` for agents without hooks",
        about: "`job`: every runner listens, and a job waits for the resource before its first step. `listener`: the resource is taken before listening.",
        aliases: &[],
    },
    Setting {
        name: "OSCR_LOCK_TIMEOUT",
        kind: SettingKind::Duration,
        default: "unset: as long as it takes",
        about: "How long a job may wait for the resource before it is failed. Where it is unset, 15 minutes for one that is set aside because its hooks failed for one job after another.",
        aliases: &[],
    },
    Setting {
        name: "OSCR_LOCK_IDLE",
        kind: SettingKind::Duration,
        default: "`60s`",
        about: "In `listener` scope: how long a holder may listen without a job before it gives the resource to a waiter.",
        aliases: &[],
    },
    Setting {
        name: "OSCR_LOCK_HOOK_TIMEOUT",
        kind: SettingKind::Duration,
        default: "`60s`",
        about: "How long each hook in `resource-acquired` and `resource-released` may take.",
        aliases: &[],
    },
    Setting {
        name: "OSCR_LOCK_TELL",
        kind: SettingKind::Text,
        default: "`owner`",
        about: "What jobs of other repositories are told of a runner that has the resource: `owner`, its owner alone, or `all`, with repository and run.",
        aliases: &[],
    },
    Setting {
        name: "OSCR_LOCK_ALLOW_NFS",
        kind: SettingKind::Flag,
        default: "false",
        about: "Accept a lock directory on NFS.",
        aliases: &[],
    },
    Setting {
        name: "OSCR_CA_FILE",
        kind: SettingKind::Path,
        default: "unset",
        about: "[Certificates](#certificates) (PEM, DER) to trust besides the system's, for OSCR itself and passed on to the agent, without whatever else is in the file.",
        aliases: &[],
    },
    Setting {
        name: "HTTP_PROXY",
        kind: SettingKind::Text,
        default: "unset",
        about: "Proxy for plain HTTP, `http://host:port` or `http://user:password@host:port`. Used by OSCR and passed on to the agent in both cases. [More](#proxies).",
        aliases: &["http_proxy"],
    },
    Setting {
        name: "HTTPS_PROXY",
        kind: SettingKind::Text,
        default: "unset",
        about: "Proxy for HTTPS, likewise.",
        aliases: &["https_proxy"],
    },
    Setting {
        name: "NO_PROXY",
        kind: SettingKind::Text,
        default: "unset",
        about: "Hosts that are reached without a proxy, likewise: names, `host:port`, addresses, networks, `*`.",
        aliases: &["no_proxy"],
    },
    Setting {
        name: "OSCR_MIN_FREE",
        kind: SettingKind::Size,
        default: "`1g`, or a tenth of a smaller file system",
        about: "With less free disk space where jobs work, no job is taken; 0 takes them always.",
        aliases: &[],
    },
    Setting {
        name: "OSCR_METRICS_ADDR",
        kind: SettingKind::Text,
        default: "unset: none are served",
        about: "Serves [metrics](operations.md#metrics) for Prometheus over plain HTTP at this `address:port`, such as `0.0.0.0:9464`.",
        aliases: &[],
    },
    Setting {
        name: "OSCR_METRICS_FILE",
        kind: SettingKind::Path,
        default: "unset: none are written",
        about: "Writes the same to this file, for the node exporter's textfile collector; in a directory, to `oscr-<hostname>.prom`. The agent's user must not be able to write there.",
        aliases: &[],
    },
    Setting {
        name: "OSCR_LOG",
        kind: SettingKind::Text,
        default: "`text`",
        about: "`text` or `json`: one line per event, each with phase and runner.",
        aliases: &[],
    },
    Setting {
        name: "OSCR_LOG_LEVEL",
        kind: SettingKind::Text,
        default: "`info`",
        about: "`error`, `warn`, `info` or `debug`.",
        aliases: &[],
    },
    Setting {
        name: "OSCR_ROOT",
        kind: SettingKind::Text,
        default: "`/`",
        about: "For tests: the directory below which OSCR's own places lie.",
        aliases: &[],
    },
];

/// One table of `docs/configuration.md`.
#[must_use]
pub fn markdown(settings: &[Setting]) -> String {
    let mut text = String::from("| setting | default | what it does |\n| --- | --- | --- |\n");
    for setting in settings {
        let name = match setting.kind {
            SettingKind::Secret => format!("`{0}`, `{0}_FILE`", setting.name),
            _ => format!("`{}`", setting.name),
        };
        let kind = match setting.kind {
            SettingKind::Text | SettingKind::Path | SettingKind::Secret => "",
            SettingKind::Flag => " True or false.",
            SettingKind::Duration => " A duration: `90`, `30m`, `1h 30m`.",
            SettingKind::Size => " A size: `500m`, `20g`.",
            SettingKind::List | SettingKind::Paths => " Separated by commas.",
        };
        let aliases = match setting.aliases {
            [] => String::new(),
            aliases => format!(" Also read from `{}`.", aliases.join("`, `")),
        };
        // Even in code, a table takes it for the end of a cell.
        let about = setting.about.replace('|', "\\|");
        let _ = writeln!(text, "| {name} | {} | {about}{kind}{aliases} |", setting.default);
    }
    text
}
