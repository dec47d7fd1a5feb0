//! How docs/configuration.md groups the settings of every runner: each setting of `COMMON` is in one group.

/// The settings of every runner by what they are about, in the order in which docs/configuration.md has them.
pub const GROUPS: &[(&str, &[&str])] = &[
    (
        "name",
        &[
            "CI_PROVIDER",
            "RUNNER_LABELS",
            "OSCR_ADD_LABELS_*",
            "RUNNER_NAME_PREFIX",
            "RUNNER_NAME",
            "OSCR_ALLOW_FIXED_NAME",
            "RUNNER_PERSISTENT",
        ],
    ),
    ("slate", &["RUNNER_WORKDIR", "OSCR_CACHE_DIRS", "OSCR_CACHE_MAX", "OSCR_MIN_FREE", "OSCR_TAINT"]),
    (
        "rights",
        &[
            "OSCR_AGENT_USER",
            "OSCR_JOB_ENV",
            "OSCR_ADD_JOB_ENV_*",
            "OSCR_SUDO",
            "OSCR_ALLOW_FORKS",
            "OSCR_ALLOW_REPOS",
            "OSCR_ALLOW_EVENTS",
            "OSCR_ALLOW_REFS",
        ],
    ),
    (
        "time",
        &[
            "OSCR_STOP_TIMEOUT",
            "OSCR_KILL_TIMEOUT",
            "OSCR_JOB_MAX",
            "OSCR_MAX_IDLE",
            "OSCR_MIN_UPTIME",
            "OSCR_START_JITTER",
        ],
    ),
    ("watch", &["OSCR_WATCH_INTERVAL", "OSCR_OFFLINE_TIMEOUT", "OSCR_JOB_OFFLINE_TIMEOUT", "OSCR_WORKER_TIMEOUT"]),
    ("agent", &["OSCR_AGENT_UPDATE", "OSCR_AGENT_CACHE"]),
    (
        "docker",
        &[
            "DOCKER_HOST",
            "OSCR_DOCKER_WAIT",
            "OSCR_DOCKER_GID0",
            "OSCR_DOCKERD",
            "OSCR_DOCKERD_MIRRORS",
            "OSCR_DOCKERD_MTU",
            "OSCR_DOCKERD_STORAGE",
        ],
    ),
    (
        "hardware",
        &[
            "RUNNER_RESOURCE_ID",
            "RUNNER_LOCK_DIR",
            "OSCR_LOCK_SCOPE",
            "OSCR_LOCK_TIMEOUT",
            "OSCR_LOCK_IDLE",
            "OSCR_LOCK_HOOK_TIMEOUT",
            "OSCR_LOCK_TELL",
            "OSCR_LOCK_ALLOW_NFS",
        ],
    ),
    ("network", &["OSCR_CA_FILE", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"]),
    ("seen", &["OSCR_LOG", "OSCR_LOG_LEVEL", "OSCR_METRICS_ADDR", "OSCR_METRICS_FILE", "OSCR_ROOT"]),
];
