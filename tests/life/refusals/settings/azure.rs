//! Settings of Azure DevOps' agents.

use super::{Given, Row, row};

const TENANT: &str = "11111111-2222-3333-4444-555555555555";
const CLIENT: &str = "99999999-8888-7777-6666-555555555555";
/// What all the rows about a service principal begin with.
const NO_PAT: (&str, &str) = ("ADO_PAT_FILE", "");
const SECRET: (&str, &str) = ("ADO_CLIENT_SECRET", "principal~secret");
const AUTHORITY: (&str, &str) = ("ADO_AUTHORITY_URL", "FORGE");
const ADDRESS: &str = "write https://dev.azure.com/<organisation>, or https://<server>/<path>/<collection>";
const ACME: Given = &[("ADO_ORG_URL", "FORGE/acme")];

const fn address(wrong: Given, words: &'static [&'static str]) -> Row {
    row(wrong, &["ADO_ORG_URL"], words, ACME)
}

pub(super) const ROWS: &[Row] = &[
    address(&[("ADO_ORG_URL", "")], &["nothing says which organisation the agent belongs to", ADDRESS]),
    address(&[("ADO_ORG_URL", "acme")], &["\"acme\" is no address of an organisation", ADDRESS]),
    address(&[("ADO_ORG_URL", "https://dev.azure.com/")], &["names no organisation", ADDRESS]),
    address(&[("ADO_ORG_URL", "FORGE/")], &["names no collection of the server", ADDRESS]),
    address(&[("ADO_ORG_URL", "FORGE/acme/_git/r")], &["is the address of something in a collection", ADDRESS]),
    row(
        &[("ADO_ORG_URL", "FORGE/acme"), ("AZP_URL", "FORGE/other")],
        &["ADO_ORG_URL"],
        &["ADO_ORG_URL and AZP_URL say different things", "keep one of them"],
        &[("AZP_URL", "")],
    ),
    row(
        &[("OSCR_ALLOW_FORKS", "true")],
        &["OSCR_ALLOW_*"],
        &[
            "this forge's agent has no hook before a job, so nothing could be held against these settings",
            "unset them, and use the forge's own checks: docs/configuration.md says which",
        ],
        &[("OSCR_ALLOW_FORKS", "")],
    ),
    row(
        &[("OSCR_REAP", "true"), ("RUNNER_NAME", "one"), ("OSCR_ALLOW_FIXED_NAME", "true")],
        &["OSCR_REAP"],
        &["knows agents by their prefix, and RUNNER_NAME has none", "use RUNNER_NAME_PREFIX"],
        &[("RUNNER_NAME", ""), ("RUNNER_NAME_PREFIX", "one")],
    ),
    row(
        &[("OSCR_REAP", "y")],
        &["OSCR_REAP"],
        &["\"y\" is neither true nor false", "use true or false"],
        &[("OSCR_REAP", "yes")],
    ),
    row(
        &[("VSTS_HTTP_PROXY", "proxy")],
        &["VSTS_HTTP_PROXY"],
        &["it is no proxy URL", "write http://host:port"],
        &[("VSTS_HTTP_PROXY", "http://proxy:3128")],
    ),
    row(
        &[NO_PAT, SECRET, ("ADO_AUTHORITY_URL", "login"), ("ADO_CLIENT_ID", CLIENT), ("ADO_TENANT_ID", TENANT)],
        &["ADO_AUTHORITY_URL"],
        &["\"login\" is no URL", "write https://host"],
        &[AUTHORITY],
    ),
    row(
        &[
            NO_PAT,
            SECRET,
            ("ADO_AUTHORITY_URL", "FORGE/22222222-2222-3333-4444-555555555555/oauth2"),
            ("ADO_CLIENT_ID", CLIENT),
            ("ADO_TENANT_ID", TENANT),
        ],
        &["ADO_AUTHORITY_URL"],
        &[
            "is of the tenant \"22222222-2222-3333-4444-555555555555\", and ADO_TENANT_ID is",
            "make them agree, or write the host alone",
        ],
        &[AUTHORITY],
    ),
    row(
        &[SECRET, AUTHORITY, ("ADO_CLIENT_ID", CLIENT), ("ADO_TENANT_ID", TENANT)],
        &["ADO_PAT"],
        &["and ADO_CLIENT_SECRET are both set", "keep one of them"],
        &[NO_PAT],
    ),
    row(
        &[NO_PAT],
        &["ADO_PAT"],
        &[
            "there is no credential",
            "or ADO_CLIENT_ID, ADO_TENANT_ID and ADO_CLIENT_SECRET_FILE for a service principal",
        ],
        &[
            ("/run/secrets/principal", "principal~secret"),
            ("ADO_CLIENT_SECRET_FILE", "ROOTrun/secrets/principal"),
            ("ADO_CLIENT_ID", CLIENT),
            ("ADO_TENANT_ID", TENANT),
            AUTHORITY,
        ],
    ),
    row(
        &[NO_PAT, SECRET, AUTHORITY, ("ADO_CLIENT_ID", "my app"), ("ADO_TENANT_ID", TENANT)],
        &["ADO_CLIENT_ID"],
        &["\"my app\" is no id", "copy it from the application's page in Entra ID"],
        &[("ADO_CLIENT_ID", CLIENT)],
    ),
    row(
        &[NO_PAT, SECRET, AUTHORITY],
        &["ADO_CLIENT_ID", "ADO_TENANT_ID"],
        &["is not set, but ADO_CLIENT_SECRET is", "a service principal needs all three"],
        &[("ADO_CLIENT_ID", CLIENT), ("ADO_TENANT_ID", TENANT)],
    ),
    row(
        &[("AGENT_LABELS", "gpu=,OSCR_NAME_PREFIX=x")],
        &["AGENT_LABELS", "AGENT_LABELS"],
        &["\"gpu=\" is no capability", "write name or name=value"],
        &[("AGENT_LABELS", "gpu=2,big")],
    ),
    row(
        &[("RUNNER_LABELS", "=2")],
        &["RUNNER_LABELS"],
        &["\"=2\" is no capability", "write name or name=value"],
        &[("RUNNER_LABELS", "gpu=2")],
    ),
    row(
        &[("AGENT_LABELS", "gpu=2"), ("OSCR_ADD_LABELS_GPU", "=3")],
        &["OSCR_ADD_LABELS_GPU"],
        &["\"=3\" is no capability", "write name or name=value"],
        &[("OSCR_ADD_LABELS_GPU", "gpu")],
    ),
];
