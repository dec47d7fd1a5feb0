//! Secrets that are something else, in each place where there can be one.

use super::{Given, Row, row};

const CURED: Given = &[("/run/secrets/github_pat", "THE_PAT")];
const ALONE: &str = "put the secret there, alone, as its page showed it";

const fn holds(file: Given, words: &'static [&'static str]) -> Row {
    row(file, &["CREDENTIAL_FILE"], words, CURED)
}

pub(super) const ROWS: &[Row] = &[
    holds(
        &[("/run/secrets/github_pat", "")],
        &[
            "names ROOTrun/secrets/github_pat, which cannot be read: No such file",
            "mount the secret there, or unset CREDENTIAL_FILE",
        ],
    ),
    holds(
        &[("/run/secrets/github_pat", "DIRECTORY")],
        &[
            "names ROOTrun/secrets/github_pat, which is a directory",
            "Docker makes one where the file to mount is missing: remove it on the host, put the file there, and make the container anew",
        ],
    ),
    holds(
        &[("/run/secrets/github_pat", "LONG_SECRET")],
        &[
            "which is longer than 65536 bytes or not text in UTF-8",
            "save it as plain text in UTF-8, with nothing but the secret in it",
        ],
    ),
    row(
        &[("CREDENTIAL_FILE", "github_pat")],
        &["CREDENTIAL_FILE"],
        &[
            "does not name a file that is there, and is no absolute path",
            "write the path of the file with the secret, or, if this is the secret, CREDENTIAL",
        ],
        &[("CREDENTIAL_FILE", "ROOTrun/secrets/github_pat")],
    ),
    row(
        &[("CREDENTIAL_FILE", "THE_PAT")],
        &["CREDENTIAL_FILE"],
        &["or, if this is the secret, CREDENTIAL"],
        &[("CREDENTIAL_FILE", ""), ("CREDENTIAL", "THE_PAT")],
    ),
    row(
        &[("CREDENTIAL", "THE_PAT")],
        &["CREDENTIAL"],
        &["is given more than once (CREDENTIAL_FILE, CREDENTIAL)", "keep one of them"],
        &[("CREDENTIAL", "")],
    ),
    row(
        &[("CREDENTIAL_FILE", ""), ("CREDENTIAL", "/run/secrets/github_pat")],
        &["CREDENTIAL"],
        &[
            "holds the path of a file",
            "NAME_FILE is for the path of the file with the secret, NAME for the secret itself",
        ],
        &[("CREDENTIAL", ""), ("CREDENTIAL_FILE", "ROOTrun/secrets/github_pat")],
    ),
    row(
        &[("/run/secrets/github_pat", "EMPTY")],
        &["CREDENTIAL"],
        &[
            "there is no credential: CREDENTIAL_FILE names ROOTrun/secrets/github_pat, which is empty",
            "set CREDENTIAL_FILE (better) or CREDENTIAL to a personal access token",
        ],
        CURED,
    ),
    row(
        &[("CREDENTIAL_FILE", "")],
        &["CREDENTIAL"],
        &["there is no credential", "set CREDENTIAL_FILE (better) or CREDENTIAL to a personal access token"],
        &[("CREDENTIAL", "THE_PAT")],
    ),
    holds(
        &[("/run/secrets/github_pat", "THE_KEY")],
        &[
            "holds a key or a certificate in PEM form",
            "give the token here; the private key of a GitHub App belongs in GITHUB_APP_PRIVATE_KEY_FILE",
        ],
    ),
    holds(&[("/run/secrets/github_pat", "{\"token\": \"abc\"}")], &["holds JSON", ALONE]),
    holds(&[("/run/secrets/github_pat", "https://example.com/tokens")], &["holds an address", ALONE]),
    holds(
        &[("/run/secrets/github_pat", "LS0tLS1CRUdJTiBSU0EgUFJJVkFURSBLRVktLS0tLQo=")],
        &["holds a key or a certificate as Base64", "decode it (base64 -d): the text itself begins with -----BEGIN"],
    ),
    holds(&[("/run/secrets/github_pat", "GITHUB_PAT=\n")], &["holds a name without a value", ALONE]),
    holds(&[("/run/secrets/github_pat", "${TOKEN}")], &["holds a placeholder that nobody filled in", ALONE]),
    holds(&[("/run/secrets/github_pat", "\"abcdef")], &["holds a quote without its other half", "take it away"]),
    holds(&[("/run/secrets/github_pat", "abc\ndef")], &["holds several lines", ALONE]),
    holds(&[("/run/secrets/github_pat", "my token")], &["holds several words", ALONE]),
    holds(&[("/run/secrets/github_pat", "t\u{f6}ken")], &["holds characters that no token has", ALONE]),
];
