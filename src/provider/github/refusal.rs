//! What GitHub's words about a refusal ask for. Its number alone says little: 403 is a right that is missing, an organisation that
//! wants single sign-on, an address that may not ask, an account that is suspended.

/// Words, and what they ask for, lower case; the first that fits counts. `{whose}` stands for the credential.
const CURES: [(&[&str], &str); 9] = [
    (&["saml", "single sign"], "authorise {whose} for the organisation's single sign-on"),
    (
        &["ip allow list", "ip address"],
        "have an owner of the organisation put this machine's address, as GitHub sees it, on its IP allow list",
    ),
    (
        &["installation has been suspended", "installation is suspended"],
        "have the owner of the App's installation unsuspend it (Settings, Installed GitHub Apps, Configure)",
    ),
    (&["suspended"], "the account behind {whose} is suspended: use another one's, or have it unsuspended"),
    (
        &["token (classic)"],
        "the organisation takes no classic tokens: use a fine-grained one or a GitHub App for {whose}",
    ),
    (&["lifetime"], "the organisation wants tokens that end sooner: replace {whose} by such a one"),
    (
        &["via a fine-grained"],
        "have an owner of the organisation approve {whose} or allow fine-grained tokens, or use a GitHub App",
    ),
    (&["archived", "blocked", "disabled"], "have whoever administers it open it again, or register elsewhere"),
    (&["expired"], "{whose} has expired: replace it"),
];

/// Words about a right that is missing, lower case.
const RIGHTS: [&str; 11] = [
    "not accessible",
    "admin rights",
    "must be an",
    "must have",
    "permission",
    "not authorized",
    "unauthorized",
    "insufficient",
    "scope",
    "forbidden",
    "access denied",
];

/// What these words ask for, if they are about something in particular. `whose` is the credential.
pub(super) fn cure(words: &str, address: Option<&str>, whose: &str) -> Option<String> {
    let words = words.to_lowercase();
    let signs_on = address.is_some_and(|address| address.contains("/sso?"));
    let by_words = || CURES.iter().find(|(known, _)| known.iter().any(|known| words.contains(known)));
    let (_, cure) = if signs_on { CURES.first() } else { by_words() }?;
    Some(cure.replace("{whose}", whose))
}

/// Whether these words of a 403 are about a right that is missing, as far as they are about anything.
pub(super) fn speaks_of_rights(words: &str) -> bool {
    let words = words.to_lowercase();
    words.is_empty() || RIGHTS.iter().any(|known| words.contains(known))
}

/// Where GitHub says more, as the end of what is told of its words.
pub(super) fn see(address: Option<&str>) -> String {
    address.map_or_else(String::new, |address| format!("; see {address}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_have_their_own_cure_and_only_those_about_rights_ask_for_rights() {
        let cases = [
            (
                "Resource protected by organization SAML enforcement. You must grant your Personal Access token access.",
                "sign-on",
            ),
            (
                "Although you appear to have the correct authorization credentials, the `acme` organization has an IP allow list enabled, and 192.0.2.7 is not permitted to access this resource.",
                "IP allow list",
            ),
            ("This installation has been suspended", "unsuspend it"),
            ("Sorry. Your account was suspended.", "account behind the token"),
            (
                "`acme` forbids access via a personal access token (classic). Please use a GitHub App.",
                "no classic tokens",
            ),
            (
                "The 'acme' organization forbids access via a fine-grained personal access tokens if the token's lifetime is greater than 366 days.",
                "end sooner",
            ),
            ("`acme` forbids access via a fine-grained personal access token", "approve the token"),
            ("Repository access blocked", "open it again"),
            ("Repository was archived so is read-only.", "open it again"),
            ("Repository level self-hosted runners are disabled", "open it again"),
            ("The token has expired", "the token has expired"),
        ];
        for (words, cure_words) in cases {
            let cure = cure(words, None, "the token").unwrap_or_default();
            assert!(cure.contains(cure_words), "{words}: {cure}");
        }
        let sign_on = cure("Not Found", Some("https://github.com/orgs/acme/sso?authorization_request=x"), "the token");
        assert!(sign_on.unwrap().contains("single sign-on"));
        for words in [
            "",
            "Forbidden",
            "Resource not accessible by integration",
            "Resource not accessible by personal access token",
            "Must have admin rights to Repository.",
            "You must be an org owner or have the right fine-grained permission",
            "Must be an admin of the organization.",
        ] {
            assert!(speaks_of_rights(words), "{words}");
        }
        assert!(!speaks_of_rights("Unicorns are angry today"));
        assert_eq!(cure("Resource not accessible by integration", None, "x"), None);
        assert_eq!(cure("Bad credentials", Some("https://docs.github.com/rest"), "x"), None);
    }
}
