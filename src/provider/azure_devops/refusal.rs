//! What the words of Azure DevOps and of Microsoft Entra ID about a refusal ask for: their numbers say little, their codes more.

/// Codes and words, and what they ask for, lower case; the first that fits counts. `{setting}` names the secret,
/// `{rights}` is what it needs.
const CURES: [(&[&str], &str); 12] = [
    (
        &["vs403463", "conditional access", "aadsts53003", "aadsts530034"],
        "have the administrator of Microsoft Entra ID let this machine pass the conditional access policy",
    ),
    (&["aadsts7000222"], "the secret in {setting} has expired: make a new one for the application, and put it there"),
    (
        &["aadsts7000215"],
        "the secret in {setting} is none of the service principal in ADO_CLIENT_ID: put the secret's value there, and not its id",
    ),
    (&["aadsts700016", "aadsts7000229"], "check ADO_CLIENT_ID: the tenant in ADO_TENANT_ID does not know it"),
    (&["aadsts90002", "aadsts900023"], "check ADO_TENANT_ID: there is no such tenant"),
    (
        &["ip address", "ip allow", "vs403407"],
        "have an administrator of the organisation let this machine's address in",
    ),
    (&["has expired", "expired token"], "the secret in {setting} has expired: replace it"),
    (
        &["anonymous access", "vs30063", "the user '' is", "aaaaaaaa-aaaa-aaaa"],
        "replace the secret in {setting} if it is wrong, expired or revoked; {rights}",
    ),
    (
        &["tf400813", "tf14045", "could not be found in the organization", "identity"],
        "{rights}; see that ADO_ORG_URL names the organisation that is meant",
    ),
    (&["tf200016", "tf200017", "does not exist"], "check ADO_ORG_URL: there is nothing of this name"),
    (&["disabled", "policy"], "have an administrator of the organisation change the policy that the message names"),
    (&["suspended", "blocked"], "have whoever administers the organisation open it again"),
];

/// Words about a right that is missing, lower case.
const RIGHTS: [&str; 5] = ["permission", "access denied", "not authorized", "unauthorized", "forbidden"];

/// What these words ask for, if they are about something in particular.
pub(super) fn cure(words: &str, setting: &str, rights: &str) -> Option<String> {
    let words = words.to_lowercase();
    let (_, cure) = CURES.iter().find(|(known, _)| known.iter().any(|known| words.contains(known)))?;
    Some(cure.replace("{setting}", setting).replace("{rights}", rights))
}

/// Whether these words of a 403 are about a right that is missing, as far as they are about anything.
pub(super) fn speaks_of_rights(words: &str) -> bool {
    let words = words.to_lowercase();
    words.is_empty() || RIGHTS.iter().any(|known| words.contains(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_have_their_own_cure_and_only_those_about_rights_ask_for_rights() {
        let cases = [
            (
                "VS403463: The conditional access policy defined by your Microsoft Entra administrator has failed.",
                "conditional access",
            ),
            ("AADSTS7000222: The provided client secret keys are expired.", "has expired"),
            ("AADSTS7000215: Invalid client secret provided.", "not its id"),
            ("AADSTS700016: Application was not found in the directory", "ADO_CLIENT_ID"),
            ("AADSTS90002: Tenant 'x' not found.", "ADO_TENANT_ID"),
            (
                "TF400813: Resource not available for anonymous access. Client authentication required.",
                "wrong, expired or revoked",
            ),
            ("VS30063: You are not authorized to access https://dev.azure.com.", "wrong, expired or revoked"),
            ("TF400813: The user 'x' is not authorized to access this resource.", "needs rights"),
            ("TF14045: The identity could not be found.", "needs rights"),
            (
                "TF400813: The user 'aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa' is not authorized to access this resource.",
                "wrong, expired or revoked",
            ),
            ("TF200016: The following organization does not exist: x.", "ADO_ORG_URL"),
            ("The personal access token used has expired.", "has expired: replace it"),
            ("Personal access tokens are restricted by a policy of the organization.", "policy"),
        ];
        for (words, cure_words) in cases {
            let cure = cure(words, "ADO_PAT", "it needs rights").unwrap_or_default();
            assert!(cure.contains(cure_words), "{words}: {cure}");
        }
        for words in [
            "",
            "Forbidden",
            "Access denied. Somebody needs Manage permissions for pool Default to perform the action.",
        ] {
            assert!(speaks_of_rights(words) && cure(words, "ADO_PAT", "it needs rights").is_none(), "{words}");
        }
        assert!(!speaks_of_rights("Unicorns are angry today"));
    }
}
