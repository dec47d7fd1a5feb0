//! Settings of GitHub's runners.

use super::{Given, Row, row};

const NO_PAT: (&str, &str) = ("GITHUB_PAT_FILE", "");
const APP: (&str, &str) = ("GITHUB_APP_ID", "4711");
const KEY: (&str, &str) = ("GITHUB_APP_PRIVATE_KEY_FILE", "ROOTrun/secrets/key");
const IS_KEY: (&str, &str) = ("/run/secrets/key", "THE_KEY");
const JIT: (&str, &str) = ("ACTIONS_RUNNER_INPUT_JITCONFIG", "THE_JIT");
const AGREE: &str =
    "make them agree, or keep one of them: GITHUB_HOST names the server, GITHUB_OWNER and GITHUB_REPO what is there";
const APP_KEY: &str = "generate a private key on the App's page, and give the file that GitHub hands out as it is";
const CONFIGURATION: &str = "give the encoded_jit_config that generate-jitconfig answered with, as it is";
const IN_PEM: &str = "it is no private key in PEM form (-----BEGIN RSA PRIVATE KEY----- …)";

/// A key of the App that is none.
const fn key(wrong: &'static [(&'static str, &'static str)], words: &'static [&'static str]) -> Row {
    row(wrong, &["GITHUB_APP_PRIVATE_KEY_FILE"], words, &[IS_KEY])
}

/// A just-in-time configuration that is none.
const fn configuration(wrong: Given, words: &'static [&'static str]) -> Row {
    row(wrong, &["ACTIONS_RUNNER_INPUT_JITCONFIG"], words, &[JIT])
}

pub(super) const ROWS: &[Row] = &[
    row(
        &[("OSCR_REGISTRATION", "magic"), ("RUNNER_NO_DEFAULT_LABELS", "n")],
        &["OSCR_REGISTRATION", "RUNNER_NO_DEFAULT_LABELS"],
        &["\"magic\" is not known", "use one of: token, jit", "use true or false"],
        &[("OSCR_REGISTRATION", "jit"), ("RUNNER_NO_DEFAULT_LABELS", "no")],
    ),
    row(
        &[("OSCR_REGISTRATION", "jit"), ("RUNNER_PERSISTENT", "true")],
        &["OSCR_REGISTRATION"],
        &["a just-in-time runner is always ephemeral, but RUNNER_PERSISTENT is true", "use OSCR_REGISTRATION=token"],
        &[("OSCR_REGISTRATION", "token")],
    ),
    row(
        &[NO_PAT, JIT, ("RUNNER_PERSISTENT", "true")],
        &["RUNNER_PERSISTENT"],
        &[
            "a just-in-time runner is always ephemeral, and ACTIONS_RUNNER_INPUT_JITCONFIG is one",
            "unset RUNNER_PERSISTENT",
        ],
        &[("RUNNER_PERSISTENT", "")],
    ),
    row(
        &[NO_PAT, ("RUNNER_TOKEN", "THE_TOKEN"), ("OSCR_REGISTRATION", "jit")],
        &["OSCR_REGISTRATION"],
        &[
            "jit needs a token that can ask GitHub's API, and RUNNER_TOKEN cannot",
            "use GITHUB_PAT or a GitHub App, or OSCR_REGISTRATION=token",
        ],
        &[("OSCR_REGISTRATION", "token")],
    ),
    row(
        &[NO_PAT, APP, KEY, IS_KEY, ("GITHUB_OWNER", ""), ("GITHUB_REPO", ""), ("GITHUB_ENTERPRISE", "e")],
        &["GITHUB_ENTERPRISE"],
        &["GitHub lets no App manage the runners of an enterprise", "use GITHUB_PAT, or register with an organisation"],
        &[("GITHUB_ENTERPRISE", ""), ("GITHUB_OWNER", "o")],
    ),
    row(
        &[("GITHUB_RUNNER_GROUP", "builders")],
        &["GITHUB_RUNNER_GROUP"],
        &["repositories have no runner groups", "unset it, or unset GITHUB_REPO to register with the organisation"],
        &[("GITHUB_RUNNER_GROUP", "")],
    ),
    row(
        &[("OSCR_TOKEN_CACHE", "tokens")],
        &["OSCR_TOKEN_CACHE"],
        &["is not an absolute path", "write /var/cache/oscr/tokens, and mount it"],
        &[("/var/cache/oscr/tokens", "DIRECTORY"), ("OSCR_TOKEN_CACHE", "ROOTvar/cache/oscr/tokens")],
    ),
    row(
        &[("OSCR_REGISTRATION", "jit"), ("RUNNER_LABELS", "MANY_LABELS")],
        &["RUNNER_LABELS"],
        &["names 101 labels, and GitHub takes 100 for a runner", "name fewer"],
        &[("RUNNER_LABELS", "linux,big")],
    ),
    row(
        &[("GITHUB_HOST", "FORGE:8080")],
        &["GITHUB_HOST"],
        &[
            "the runner that is configured by a token drops the port 8080, and would send the token to FORGE",
            "use OSCR_REGISTRATION=jit, or have the server or a proxy listen on port 80, and name no port",
        ],
        &[("GITHUB_HOST", "FORGE")],
    ),
    row(
        &[("OSCR_ALLOW_REPOS", "LONG_PATTERN/r"), ("OSCR_ALLOW_REFS", ","), ("OSCR_ALLOW_EVENTS", ",")],
        &["OSCR_ALLOW_EVENTS", "OSCR_ALLOW_REFS", "OSCR_ALLOW_REPOS"],
        &[
            "has an entry of more than 1024 bytes",
            "write shorter patterns",
            "is an empty list, so no job could ever run",
            "name what may run, or unset it",
        ],
        &[("OSCR_ALLOW_REPOS", "o/*"), ("OSCR_ALLOW_REFS", "main"), ("OSCR_ALLOW_EVENTS", "")],
    ),
    row(
        &[("OSCR_ALLOW_REPOS", "r")],
        &["OSCR_ALLOW_REPOS"],
        &["\"r\" fits no repository", "write owner/name, or owner/* for all of an owner"],
        &[("OSCR_ALLOW_REPOS", "o/r")],
    ),
    // Addresses.
    row(
        &[("GITHUB_HOST", "http://x y/")],
        &["GITHUB_HOST"],
        &[
            "is neither a host, nor host:port, nor a URL",
            "write github.example.com, github.example.com:8443 or https://github.example.com",
        ],
        &[("GITHUB_HOST", "FORGE")],
    ),
    row(
        &[("GITHUB_OWNER", "https://github.com/o")],
        &["GITHUB_OWNER"],
        &["leads to https://github.com, and GITHUB_HOST to FORGE", AGREE],
        &[("GITHUB_OWNER", "o")],
    ),
    row(
        &[("GITHUB_API_URL", "https://api.github.com")],
        &["GITHUB_API_URL"],
        &[
            "leads to https://github.com, and GITHUB_HOST to FORGE: a token of the one would be sent to the other",
            "unset it, and the API of FORGE is used, or unset GITHUB_HOST",
        ],
        &[("GITHUB_API_URL", "")],
    ),
    row(
        &[("GITHUB_API_URL", "ftp://host")],
        &["GITHUB_API_URL"],
        &["\"ftp://host\" is no URL", "write https://host/api/v3"],
        &[("GITHUB_API_URL", "FORGE/api/v3")],
    ),
    row(
        &[("REPO_URL", "http://me:ghp_0123456789abcdefghijABCDEFGHIJ012345@HOST:/o/r")],
        &["REPO_URL"],
        &["holds a password or a token", "take it out, and revoke it: GITHUB_PAT_FILE is for the token"],
        &[("REPO_URL", "FORGE/o/r")],
    ),
    row(
        &[("GITHUB_REPO", "other/r")],
        &["GITHUB_REPO"],
        &[
            "names the owner \"other\", but GITHUB_OWNER says \"o\"",
            "make them agree, or unset one of them: GITHUB_OWNER is enough",
        ],
        &[("GITHUB_REPO", "r")],
    ),
    row(
        &[("REPO_URL", "FORGE/o/q")],
        &["REPO_URL"],
        &["names the repository \"q\", but GITHUB_REPO says \"r\"", "unset one of them: GITHUB_REPO is enough"],
        &[("REPO_URL", "")],
    ),
    row(
        &[("RUNNER_REPOSITORY_URL", "FORGE/")],
        &["RUNNER_REPOSITORY_URL"],
        &["names no repository", "write GITHUB_OWNER and GITHUB_REPO instead"],
        &[("RUNNER_REPOSITORY_URL", "")],
    ),
    row(
        &[("GITHUB_OWNER", "enterprises/e")],
        &["GITHUB_OWNER"],
        &["\"enterprises/e\" names no owner on GitHub", "write its name, or the address of its page"],
        &[("GITHUB_OWNER", "FORGE/o")],
    ),
    row(
        &[("GITHUB_REPO", "FORGE/o")],
        &["GITHUB_REPO"],
        &["names no repository on GitHub", "write owner/name, or the address of the repository's page"],
        &[("GITHUB_REPO", "FORGE/o/r")],
    ),
    row(
        &[("GITHUB_OWNER", ""), ("GITHUB_REPO", ""), ("GITHUB_ENTERPRISE", "FORGE/o/r")],
        &["GITHUB_ENTERPRISE"],
        &[
            "names no enterprise on GitHub",
            "write its name, as it stands in the address of its page behind /enterprises/",
        ],
        &[("GITHUB_ENTERPRISE", "e")],
    ),
    row(
        &[("APP_LOGIN", "enterprises/e")],
        &["APP_LOGIN"],
        &["names no owner on GitHub", "write its name, or the address of its page"],
        &[("APP_LOGIN", "o")],
    ),
    row(
        &[("GITHUB_OWNER", "my org")],
        &["GITHUB_OWNER"],
        &["\"my org\" is no name on GitHub", "use letters, digits, dashes, dots, underscores"],
        &[("GITHUB_OWNER", "o")],
    ),
    row(
        &[("GITHUB_ENTERPRISE", "e")],
        &["GITHUB_ENTERPRISE"],
        &[
            "a runner belongs to an enterprise, an organisation or a repository, and more than one is set",
            "keep GITHUB_ENTERPRISE, or GITHUB_OWNER with GITHUB_REPO",
        ],
        &[("GITHUB_ENTERPRISE", "")],
    ),
    row(
        &[("GITHUB_OWNER", "")],
        &["GITHUB_OWNER"],
        &["is not set, but GITHUB_REPO is", "set it, or write GITHUB_REPO=owner/name"],
        &[("GITHUB_REPO", "o/r")],
    ),
    row(
        &[("GITHUB_OWNER", ""), ("GITHUB_REPO", "")],
        &["GITHUB_OWNER"],
        &[
            "nothing says whose runner this is",
            "set GITHUB_OWNER (organisation), GITHUB_OWNER and GITHUB_REPO (repository), or GITHUB_ENTERPRISE",
        ],
        &[("GITHUB_OWNER", "o")],
    ),
    row(
        &[("RUNNER_SCOPE", "org")],
        &["RUNNER_SCOPE"],
        &[
            "\"org\" contradicts the scope that the other settings give (o/r)",
            "unset RUNNER_SCOPE; GITHUB_OWNER, GITHUB_REPO and GITHUB_ENTERPRISE say it all",
        ],
        &[("RUNNER_SCOPE", "")],
    ),
    // Apps.
    row(
        &[NO_PAT, APP, KEY, IS_KEY, ("GITHUB_APP_INSTALLATION_ID", "ours")],
        &["GITHUB_APP_INSTALLATION_ID"],
        &[
            "\"ours\" is no number",
            "write the number at the end of the address of the installation's page, or unset it",
        ],
        &[("GITHUB_APP_INSTALLATION_ID", "77")],
    ),
    row(
        &[NO_PAT, ("GITHUB_APP_ID", "my app"), KEY, IS_KEY],
        &["GITHUB_APP_ID"],
        &[
            "\"my app\" is neither an id nor a client id",
            "copy it from the App's page: 123456, or Iv1.0123456789abcdef",
        ],
        &[APP],
    ),
    row(
        &[NO_PAT, APP],
        &["GITHUB_APP_PRIVATE_KEY"],
        &[
            "is not set, but GITHUB_APP_ID is",
            "set GITHUB_APP_PRIVATE_KEY_FILE (better) or GITHUB_APP_PRIVATE_KEY to the App's private key",
        ],
        &[("GITHUB_APP_PRIVATE_KEY", "THE_KEY")],
    ),
    row(
        &[NO_PAT, KEY, IS_KEY],
        &["GITHUB_APP_ID"],
        &["is not set, but the private key of an App is", "set it to the App's id or client id"],
        &[APP],
    ),
    key(&[NO_PAT, APP, KEY, ("/run/secrets/key", "abcdef")], &["cannot be used: ", IN_PEM, APP_KEY]),
    key(
        &[NO_PAT, APP, KEY, ("/run/secrets/key", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ")],
        &[
            "it is a key with a passphrase, and not the private key that GitHub gave for the App (-----BEGIN RSA PRIVATE KEY-----)",
        ],
    ),
    key(
        &[NO_PAT, APP, KEY, ("/run/secrets/key", "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END ")],
        &["it is a key for SSH", APP_KEY],
    ),
    key(
        &[NO_PAT, APP, KEY, ("/run/secrets/key", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END ")],
        &["it is a certificate", APP_KEY],
    ),
    key(
        &[NO_PAT, APP, KEY, ("/run/secrets/key", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END ")],
        &["it is the public half of a key", APP_KEY],
    ),
    key(
        &[NO_PAT, APP, KEY, ("/run/secrets/key", "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END ")],
        &["it is something else in PEM form", APP_KEY],
    ),
    key(
        &[NO_PAT, APP, KEY, ("/run/secrets/key", "-----BEGIN RSA PRIVATE KEY-----\nAAAA")],
        &["its text is damaged or cut short: it is no base64", APP_KEY],
    ),
    key(
        &[NO_PAT, APP, KEY, ("/run/secrets/key", "-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA")],
        &["it is damaged, or no RSA key of 2048 bits or more", APP_KEY],
    ),
    // Configurations made elsewhere.
    row(
        &[JIT],
        &["ACTIONS_RUNNER_INPUT_JITCONFIG"],
        &["is complete by itself, but another credential is given too", "keep one of them"],
        &[NO_PAT],
    ),
    // {".runner":"eyJHaXRIdWJVcmwiOiJodHRwczovL2dpdGh1Yi5jb20vby9yIn0="}, which is {"GitHubUrl":"https://github.com/o/r"}
    configuration(
        &[
            NO_PAT,
            (
                "ACTIONS_RUNNER_INPUT_JITCONFIG",
                "eyIucnVubmVyIjoiZXlKSGFYUklkV0pWY213aU9pSm9kSFJ3Y3pvdkwyZHBkR2gxWWk1amIyMHZieTl5SW4wPSJ9",
            ),
        ],
        &[
            "leads to https://github.com, and GITHUB_HOST to FORGE",
            "unset GITHUB_HOST: the configuration is for its own server alone",
        ],
    ),
    configuration(
        &[NO_PAT, ("ACTIONS_RUNNER_INPUT_JITCONFIG", "of-ours")],
        &["is no just-in-time configuration: it is not base64", CONFIGURATION],
    ),
    configuration(
        &[NO_PAT, ("ACTIONS_RUNNER_INPUT_JITCONFIG", "W10=")],
        &["it is not a JSON object of strings", CONFIGURATION],
    ),
    // {".env":""}
    configuration(
        &[NO_PAT, ("ACTIONS_RUNNER_INPUT_JITCONFIG", "eyIuZW52IjoiIn0=")],
        &["it holds a file with an unexpected name", CONFIGURATION],
    ),
    // {".runner":"?"}
    configuration(
        &[NO_PAT, ("ACTIONS_RUNNER_INPUT_JITCONFIG", "eyIucnVubmVyIjoiPyJ9")],
        &["the content of a file of it is not base64", CONFIGURATION],
    ),
    // {".abc":""}
    configuration(
        &[NO_PAT, ("ACTIONS_RUNNER_INPUT_JITCONFIG", "eyIuYWJjIjoiIn0=")],
        &["it holds no .runner file", CONFIGURATION],
    ),
    // {".runner":"W10="}
    row(
        &[NO_PAT, ("ACTIONS_RUNNER_INPUT_JITCONFIG", "eyIucnVubmVyIjoiVzEwPSJ9")],
        &["ACTIONS_RUNNER_INPUT_JITCONFIG"],
        &["its .runner is not a JSON object", CONFIGURATION],
        &[
            ("/run/secrets/jit", "JIT_IN_LINES"),
            ("ACTIONS_RUNNER_INPUT_JITCONFIG", ""),
            ("ACTIONS_RUNNER_INPUT_JITCONFIG_FILE", "ROOTrun/secrets/jit"),
        ],
    ),
];
