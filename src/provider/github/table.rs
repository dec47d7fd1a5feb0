//! The table of GitHub's settings, and the names that other containers use for them.

use crate::config::table::{Setting, SettingKind};

/// The settings of this provider.
pub(super) const TABLE: &[Setting] = &[
    Setting {
        name: "GITHUB_PAT",
        kind: SettingKind::Secret,
        default: "one credential is needed",
        about: "A personal access token that may manage self-hosted runners of the scope.",
        aliases: &["ACCESS_TOKEN", "GH_PAT", "GITHUB_ACCESS_TOKEN", "RUNNER_PAT"],
    },
    Setting {
        name: "GITHUB_APP_ID",
        kind: SettingKind::Text,
        default: "unset",
        about: "The id or client id of a GitHub App that is installed for the owner, instead of a token of a person. With `GITHUB_APP_PRIVATE_KEY`.",
        aliases: &["APP_ID"],
    },
    Setting {
        name: "GITHUB_APP_PRIVATE_KEY",
        kind: SettingKind::Secret,
        default: "one credential is needed",
        about: "The App's private key (PEM), as GitHub gave it; in a variable, `\\n` may stand for the ends of lines.",
        aliases: &["APP_PRIVATE_KEY"],
    },
    Setting {
        name: "GITHUB_APP_INSTALLATION_ID",
        kind: SettingKind::Text,
        default: "looked up by owner and repository",
        about: "The number of the App's installation.",
        aliases: &[],
    },
    Setting {
        name: "RUNNER_TOKEN",
        kind: SettingKind::Secret,
        default: "one credential is needed",
        about: "A registration token made by hand. It lives for an hour, and with it alone a killed container's registration cannot be removed by the next one.",
        aliases: &[],
    },
    Setting {
        name: "ACTIONS_RUNNER_INPUT_JITCONFIG",
        kind: SettingKind::Secret,
        default: "one credential is needed",
        about: "A just-in-time configuration that was made elsewhere (`generate-jitconfig`), complete by itself: no owner, no other credential. It is good for one job.",
        aliases: &[],
    },
    Setting {
        name: "GITHUB_OWNER",
        kind: SettingKind::Text,
        default: "needed, unless `GITHUB_ENTERPRISE` is set",
        about: "The organisation, or the owner of the repository.",
        aliases: &["ORG_NAME", "ORG"],
    },
    Setting {
        name: "GITHUB_REPO",
        kind: SettingKind::Text,
        default: "unset: the whole organisation",
        about: "The repository, as `name` or `owner/name`, or its address.",
        aliases: &["REPO"],
    },
    Setting {
        name: "GITHUB_ENTERPRISE",
        kind: SettingKind::Text,
        default: "unset",
        about: "The enterprise's slug, for runners of a whole enterprise.",
        aliases: &["ENTERPRISE_NAME"],
    },
    Setting {
        name: "GITHUB_HOST",
        kind: SettingKind::Text,
        default: "`github.com`",
        about: "The host, `host:port` or URL of GitHub Enterprise Server or `<name>.ghe.com`. Another port than the scheme's own needs `OSCR_REGISTRATION=jit`: the runner that is configured by a token drops it.",
        aliases: &["RUNNER_GITHUB"],
    },
    Setting {
        name: "GITHUB_API_URL",
        kind: SettingKind::Text,
        default: "follows from `GITHUB_HOST`",
        about: "The API's base URL: `https://api.github.com`, `https://api.<name>.ghe.com`, `https://<host>/api/v3`. It must be of the same host; alone, it says the host, too.",
        aliases: &[],
    },
    Setting {
        name: "GITHUB_RUNNER_GROUP",
        kind: SettingKind::Text,
        default: "the default group",
        about: "The runner group, by name.",
        aliases: &["RUNNER_GROUP"],
    },
    Setting {
        name: "RUNNER_NO_DEFAULT_LABELS",
        kind: SettingKind::Flag,
        default: "false",
        about: "Leave out `self-hosted`, the system and the architecture, which the agent adds by itself.",
        aliases: &["NO_DEFAULT_LABELS"],
    },
    Setting {
        name: "OSCR_REGISTRATION",
        kind: SettingKind::Text,
        default: "`token`",
        about: "`token`: a registration token and the agent's configure step. `jit`: a just-in-time configuration, without it.",
        aliases: &[],
    },
    Setting {
        name: "OSCR_TOKEN_CACHE",
        kind: SettingKind::Path,
        default: "unset: each registration asks for its own",
        about: "With `token`: a directory for root alone, shared by the containers of this host, where they find one registration token for all. See docs/reliability.md.",
        aliases: &[],
    },
];
