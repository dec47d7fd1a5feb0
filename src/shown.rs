//! What of a value may stand in a message: all of it but the secrets that people put where they do not belong.
//!
//! Whoever quotes what a user wrote does so by [`quoted`] or [`shown`]. What [`secrets_in`] finds is blanked out of every line of the
//! log besides, for words that come from elsewhere.

/// How the tokens of forges begin.
const BEGINNINGS: [&str; 8] = ["ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "glrt-"];
/// What stands before a secret, as `access_token=`.
const NAMES_OF_SECRETS: [&str; 7] = ["token", "secret", "password", "passwd", "pat", "key", "sig"];
/// So many letters and digits without anything between them, of both kinds, are no word of people's.
const RANDOM: usize = 28;
/// A JSON web token, what else is Base64 of a JSON object, and a token of GitHub's newer kind are no shorter.
const SHORTEST: usize = 20;
/// What a key in PEM form begins with.
const PEM: &str = "-----BEGIN ";

/// A value as it may be shown.
#[must_use]
pub(crate) fn shown(value: &str) -> String {
    let (value, key) = match value.find(PEM) {
        Some(at) => (&value[..at], "***"),
        None => (value, ""),
    };
    let (before, rest) = match span(value) {
        Some(Span { begin, end, .. }) => (format!("{}***", words(&value[..begin])), &value[end..]),
        None => (String::new(), value),
    };
    let asked = rest.find(['?', '#']).filter(|at| rest[*at..].contains('='));
    let rest = match asked {
        Some(at) => format!("{}***", words(&rest[..=at])),
        None => words(rest),
    };
    format!("{before}{rest}{key}")
}

/// The same in quotes, on one line.
#[must_use]
pub(crate) fn quoted(value: &str) -> String {
    format!("{:?}", shown(value))
}

/// The secrets that stand in a value: the user and password of an address, tokens, keys.
#[must_use]
pub(crate) fn secrets_in(value: &str) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(at) = value.find(PEM) {
        found.push(value[at..].to_owned());
    }
    if let Some(Span { begin, end, password: Some(password) }) = span(value) {
        found.extend([value[begin..end].to_owned(), value[password..end].to_owned()]);
    }
    for asked in value.split(['?', '&', '#']).skip(1) {
        if let Some((name, secret)) = asked.split_once('=')
            && names_secret(name)
        {
            found.push(secret.to_owned());
        }
    }
    let tokens = value.split(|c| !in_word(c)).filter(|word| BEGINNINGS.iter().any(|known| begins(word, known)));
    found.extend(tokens.map(str::to_owned));
    found.retain(|secret| !secret.is_empty());
    found
}

/// A value without the user and the password of its address, and without what is asked there; nothing where that is not all of the
/// secret, or all of the value.
#[must_use]
pub(crate) fn without_secrets(value: &str) -> Option<String> {
    let value = match span(value) {
        Some(Span { begin, end, .. }) => format!("{}{}", &value[..begin], value[end..].trim_start_matches('@')),
        None => value.to_owned(),
    };
    let value = value.split(['?', '#']).next().unwrap_or_default();
    (!value.is_empty() && secrets_in(value).is_empty()).then(|| value.to_owned())
}

/// Where in a value somebody says who asks.
struct Span {
    begin: usize,
    end: usize,
    /// Where the password begins, if there is one.
    password: Option<usize>,
}

/// Up to the last `@`, wherever that is: a password may hold any character, and too little is worse than too much.
fn span(value: &str) -> Option<Span> {
    let scheme = value.find("://").map(|at| at + 3);
    let begin = scheme.unwrap_or(0);
    let rest = &value[begin..];
    let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    let of_port =
        |at: usize| authority.get(at + 1..).is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
    let colon =
        |text: &str| text.match_indices(':').map(|(at, _)| at).find(|at| !of_port(*at)).map(|at| begin + at + 1);
    match rest.rfind('@').filter(|at| *at > 0) {
        Some(at) => {
            let (who, end) = (&rest[..at], begin + at);
            let password = colon(who).filter(|password| *password < end);
            let user = at < authority.len() && who != "git";
            (password.is_some() || user || who.contains(':')).then_some(Span { begin, end, password })
        }
        // Cut off at a comma, say.
        None if scheme.is_some() && !authority.starts_with('[') => {
            let password = colon(authority)?;
            Some(Span { begin, end: begin + authority.len(), password: Some(password) })
        }
        None => None,
    }
}

/// Whether a character can stand in a token.
fn in_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '~' | '-' | '.')
}

/// The text with `***` for each word that looks like a token.
fn words(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c| !in_word(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        clean.push_str(if is_token(word) { "***" } else { word });
        if let Some(secret) = after.strip_prefix('=')
            && names_secret(word)
        {
            clean.push_str("=***");
            rest = secret.trim_start_matches(|c: char| !c.is_whitespace() && !matches!(c, ',' | ';' | '&'));
            continue;
        }
        let next = after.find(in_word).unwrap_or(after.len());
        clean.push_str(&after[..next]);
        rest = &after[next..];
    }
    clean
}

/// Whether what stands behind this name is most likely a secret.
fn names_secret(name: &str) -> bool {
    NAMES_OF_SECRETS.iter().any(|known| name.to_ascii_lowercase().ends_with(known))
}

/// Whether a word is a token by its beginning. The longest of these is what people call files by, too.
fn begins(word: &str, known: &str) -> bool {
    let long = known.len() < 8 || (word.len() >= SHORTEST && word.bytes().any(|byte| byte.is_ascii_digit()));
    let begins = word.get(..known.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(known));
    begins && long && word.len() > known.len()
}

fn is_token(word: &str) -> bool {
    let random = |run: &str| {
        run.len() >= RANDOM
            && run.bytes().any(|byte| byte.is_ascii_digit())
            && run.bytes().any(|byte| byte.is_ascii_alphabetic())
    };
    BEGINNINGS.iter().any(|known| begins(word, known))
        || (word.starts_with("eyJ") && word.len() >= SHORTEST)
        || (word.contains("Q~") && word.len() >= RANDOM)
        || word.split(|c: char| !c.is_ascii_alphanumeric()).any(random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_is_not_shown_whatever_the_password_is_made_of() {
        for (value, text) in [
            ("http://me:pw@proxy:3128", "http://***@proxy:3128"),
            ("https://user:word@host/a/b.git", "https://***@host/a/b.git"),
            ("https://word@host/a", "https://***@host/a"),
            ("https://me:a/b?c#d@e@host/x", "https://***@host/x"),
            ("https://me:pw@host/x@y", "https://***@y"),
            ("https://me:12/3@host/x", "https://***@host/x"),
            ("http://proxy:3128/x@y", "http://***@y"),
            ("https://me:to", "https://***"),
            ("me:pw@host/a", "***@host/a"),
            ("a=https://me:pw@one,b=https://me:pw@two", "a=https://***@two"),
            ("https://host/a?access_token=word&x=1#y", "https://host/a?***"),
            ("a,GITHUB_PAT=word,java=17", "a,GITHUB_PAT=***,java=17"),
            ("ghp_short", "***"),
            ("label-ghp_short,b", "label-ghp_short,b"),
            ("a,GHP_0123,b", "a,***,b"),
            ("eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOjF9", "***"),
            ("AABF3JGZDX3P5PMEXLND6TS6FCWO6", "***"),
            ("Xyz8Q~0123456789-abcdef.ghijkl_mnopqr", "***"),
            ("my -----BEGIN RSA PRIVATE KEY-----\nMIIE", "my ***"),
        ] {
            assert_eq!(shown(value), text, "{value}");
        }
        assert_eq!(quoted("https://me:a\"b@h"), "\"https://***@h\"");
    }

    #[test]
    fn what_holds_no_secret_is_shown_as_it_is() {
        for value in [
            "http://proxy:3128",
            "https://host/x@v1",
            "https://[::1]:8080/x",
            "git@github.com:acme/widgets.git",
            "ssh://git@github.com/acme/widgets",
            "owner/name",
            "board-1|board-2",
            "self-hosted,linux,ubuntu-24.04-with-a-very-long-name-of-many-words-2",
            "0d9a7a84-5e0f-4a3b-9d0f-0123456789ab",
            "/work/_tool",
            "/run/secrets/github_pat_acme",
            "refs/heads/release/**",
            "@acme",
            "1h 30m",
            "",
            "Prüfstand 7",
        ] {
            assert_eq!(shown(value), value);
            assert!(secrets_in(value).is_empty(), "{value}");
        }
        assert_eq!(shown("https://acme@dev.azure.com/acme"), "https://***@dev.azure.com/acme");
        assert!(secrets_in("https://acme@dev.azure.com/acme").is_empty());
        assert!(secrets_in("https://github.com/acme?tab=repositories").is_empty());
    }

    #[test]
    fn secrets_are_found_and_taken_out() {
        let found = secrets_in("https://me:p@ss@host/x?token=abcd");
        assert_eq!(found, ["me:p@ss", "p@ss", "abcd"]);
        assert_eq!(without_secrets("https://me:p@ss@host/x?token=abcd").as_deref(), Some("https://host/x"));
        assert_eq!(without_secrets("https://host/x").as_deref(), Some("https://host/x"));
        assert_eq!(secrets_in("https://ghp_abc@github.com/a"), ["ghp_abc"]);
        assert_eq!(without_secrets("https://ghp_abc@github.com/a").as_deref(), Some("https://github.com/a"));
        assert_eq!(without_secrets("a,ghp_abc"), None);
    }

    #[test]
    fn fuzz_shown() {
        crate::fuzz::run("values", |bytes| {
            let text = String::from_utf8_lossy(bytes);
            for value in [format!("http://me:hidden-word@{text}"), format!("{text}://me:hidden-word@host")] {
                assert!(!shown(&value).contains("hidden-word"), "{value}: {}", shown(&value));
            }
            shown(&text) == text
        });
    }
}
