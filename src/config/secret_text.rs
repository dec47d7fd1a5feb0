//! What the text of a secret is, as editors, shells and orchestrators leave it: the secret itself, or plainly something else.

use super::reading::meant;

/// What stands where a secret belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Misplaced {
    /// What it is.
    pub what: &'static str,
    /// What to do about it.
    pub cure: &'static str,
}

/// What a secret is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SecretForm {
    /// One word.
    Word,
    /// A key in PEM form, of several lines.
    Key,
    /// Base64, which may be broken into lines.
    Encoded,
}

/// The secret in a text: of `NAME=value`, as a file of settings has it, the value. `names` are those that the secret has as a setting. Whether
/// there was such a name comes with it.
pub(super) fn value<'a>(text: &'a str, names: &[&str]) -> (&'a str, bool) {
    let text = meant(text);
    let assigned = |line: &'a str| {
        let line = line.trim_start();
        let (name, value) = line.strip_prefix("export ").unwrap_or(line).split_once('=')?;
        let is_name = name.len() > 1
            && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_');
        // Base64 may end in these.
        (is_name && !value.trim_matches('=').is_empty()).then(|| (name, meant(value)))
    };
    // A file of several settings has ours among them; a key goes over several lines.
    let ours = text.lines().find_map(|line| assigned(line).filter(|(name, _)| names.contains(name)));
    let whole = assigned(text).filter(|(_, value)| !value.contains('\n') || value.starts_with("-----BEGIN"));
    match whole.or(ours.filter(|(_, value)| !value.starts_with("-----BEGIN"))) {
        Some((_, value)) => (value, true),
        None => (text, false),
    }
}

/// Whether a text is plainly something else than a secret of this form.
pub(super) fn misplaced(text: &str, form: SecretForm) -> Option<Misplaced> {
    let found = |what, cure| Some(Misplaced { what, cure });
    if text.starts_with("-----BEGIN ") {
        return match form {
            SecretForm::Key => None,
            SecretForm::Word | SecretForm::Encoded => found(
                "a key or a certificate in PEM form",
                "give the token here; the private key of a GitHub App belongs in GITHUB_APP_PRIVATE_KEY_FILE",
            ),
        };
    }
    if text.contains("-----BEGIN ") && form == SecretForm::Key {
        return None;
    }
    let alone = "put the secret there, alone, as its page showed it";
    if text.starts_with(['{', '[']) {
        return found("JSON", alone);
    }
    if text.contains("://") {
        return found("an address", alone);
    }
    if !text.contains(char::is_whitespace) && (text.starts_with('/') || text.starts_with("./")) {
        return found(
            "the path of a file",
            "NAME_FILE is for the path of the file with the secret, NAME for the secret itself",
        );
    }
    if text.starts_with("LS0tLS1CRUdJTi") {
        return found(
            "a key or a certificate as Base64",
            "decode it (base64 -d): the text itself begins with -----BEGIN",
        );
    }
    if text
        .strip_suffix('=')
        .is_some_and(|name| name.contains('_') && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_'))
    {
        return found("a name without a value", alone);
    }
    if text.starts_with(['$', '<']) || text.contains("${") {
        return found("a placeholder that nobody filled in", alone);
    }
    if form == SecretForm::Key {
        return None;
    }
    if text.starts_with(['"', '\'']) || text.ends_with(['"', '\'']) {
        return found("a quote without its other half", "take it away");
    }
    if form == SecretForm::Encoded {
        return None;
    }
    if text.contains(['\n', '\r']) {
        return found("several lines", alone);
    }
    if text.contains(char::is_whitespace) {
        return found("several words", alone);
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return found("characters that no token has", alone);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_found_in_what_is_around_it() {
        let names = ["GITHUB_PAT", "ACCESS_TOKEN"];
        for (text, secret, named) in [
            ("abcd", "abcd", false),
            ("\u{feff}abcd\r\n", "abcd", false),
            ("\"abcd\"\n", "abcd", false),
            ("GITHUB_PAT=abcd\n", "abcd", true),
            ("export TOKEN='abcd'", "abcd", true),
            ("# of ours\nGITHUB_OWNER=o\nACCESS_TOKEN=\"abcd\"\nX=1\n", "abcd", true),
            ("eyJhIjoiYiJ9==", "eyJhIjoiYiJ9==", false),
            ("EYJ0=", "EYJ0=", false),
            ("APP_PRIVATE_KEY=\"-----BEGIN RSA\nMII\n-----END\"", "-----BEGIN RSA\nMII\n-----END", true),
        ] {
            assert_eq!(value(text, &names), (secret, named), "{text:?}");
        }
    }

    #[test]
    fn what_is_plainly_something_else_is_said_for_what_it_is() {
        for (text, what) in [
            ("/run/secrets/pat", "path"),
            ("{\"token\":\"x\"}", "JSON"),
            ("https://github.com", "an address"),
            ("-----BEGIN RSA PRIVATE KEY-----\nMII", "PEM"),
            ("${GITHUB_PAT}", "placeholder"),
            ("<token>", "placeholder"),
            ("GITHUB_PAT=", "without a value"),
            ("LS0tLS1CRUdJTiBSU0EgUFJJVkFURSBLRVktLS0tLQ==", "Base64"),
            ("\"abcd", "quote"),
            ("A=1\nB=2", "several lines"),
            ("Bearer abcd", "several words"),
            ("abcd\u{200b}ef", "characters"),
        ] {
            let found = misplaced(text, SecretForm::Word).map(|misplaced| misplaced.what).unwrap_or_default();
            assert!(found.contains(what), "{text}: {found}");
        }
        for token in ["abcd", "ghp_A1b2", "github_pat_11A_b", "abc8Q~d.e-f_g", "eyJh.eyJi.c-_", "AbC+/=="] {
            assert_eq!(misplaced(token, SecretForm::Word), None, "{token}");
        }
        assert_eq!(misplaced("-----BEGIN RSA PRIVATE KEY-----\nMII", SecretForm::Key), None);
        assert!(
            misplaced("/run/secrets/key.pem", SecretForm::Key).is_some() && misplaced("{}", SecretForm::Key).is_some()
        );
    }
}
